/** Bounds of the plakar server that we run ourselves; each with its unit and reason. */
import { KiB } from '../../core/units.ts';

/** Pause before a plakar that ended is started again, milliseconds; doubled up to the maximum while it keeps ending. */
export const RESTART_MS_FIRST = 200;
export const RESTART_MS_MAX = 10_000;

/** One that served this long, milliseconds, ended for a reason of its own: the pauses begin anew. */
export const RESTART_FORGIVEN_MS = 30_000;

/** Until the namespace has a network, milliseconds: slirp4netns and pasta take some 100. */
export const NETWORK_WAIT_MS_MAX = 15_000;

/** Until plakar listens, milliseconds: it opens the store first, which may be far away. */
export const LISTEN_WAIT_MS_MAX = 60_000;

/** Between two looks at whether something is there, milliseconds. */
export const POLL_MS = 25;

/** Until the relay has ended after it was told to, milliseconds; then it is killed. */
export const STOP_MS_MAX = 5_000;

/** What is kept of what plakar last said, bytes. */
export const LAST_WORDS_BYTES_MAX = 4 * KiB;
