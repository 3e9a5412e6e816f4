import type { ReadCounters } from '../core/counters.ts';
import type { Decoder } from '../core/decoder.ts';
import type { Log } from '../core/log.ts';
import { KiB, MiB } from '../core/units.ts';

/** How the installed plakar is called. Secrets go by environment or key file, never on the command line. */
export interface PlakarOptions {
  /** The program: a path, or a name looked up on PATH. */
  readonly command: string;
  /** What follows plakar's `at`: a directory, a URL or `@name`. */
  readonly location: string;
  /** Handed on as `-keyfile`; every child reads it again, so it must stay where it is. */
  readonly keyfile?: string | undefined;
  /** Handed on as PLAKAR_PASSPHRASE; without it the children inherit ours, if there is one. */
  readonly passphrase?: string | undefined;
  /** Handed on as `-cachedir`, and taken for private to us: plakar's update check is switched off in it. Default: plakar's own. */
  readonly cacheDir?: string | undefined;
}

export interface PlakarCatOptions {
  readonly plakar: PlakarOptions;
  readonly decoder: Decoder;
  readonly log: Log;
  /** Child processes that run at once; up to PARKED_STREAMS_MAX more stand still. Default CONCURRENCY_DEFAULT. */
  readonly concurrency?: number | undefined;
  /** Where chunks that passed are kept, and how many bytes of them at most (default: as the disk takes). */
  readonly spool: {
    readonly directory: string;
    readonly bytesMax?: number | undefined;
    readonly encrypt?: boolean | undefined;
  };
  /** A child that writes nothing for so long although we read is given up. Default IDLE_TIMEOUT_MS_DEFAULT. */
  readonly idleTimeoutMs?: number | undefined;
  /** From SIGTERM to SIGKILL. Default KILL_GRACE_MS_DEFAULT. */
  readonly killGraceMs?: number | undefined;
  /** First pause before a file that failed is tried again; it doubles up to RETRY_PAUSE_MS_MAX. Default RETRY_PAUSE_MS_DEFAULT. */
  readonly retryPauseMs?: number | undefined;
  /**
   * Counted up in place. A request is a child process; store bytes are all that children wrote, decoded ones those that
   * made up a chunk. A chunk counts as fetched twice when it passes although it is kept. Default: a fresh object.
   */
  readonly counters?: ReadCounters | undefined;
  /** Milliseconds on a clock that does not go back. Default: the process's. */
  readonly now?: (() => number) | undefined;
}

/** One file's stream and room for small ones: each plakar decodes on several cores by itself and takes about 160 MB. */
export const CONCURRENCY_DEFAULT = 2;

/** Streams that stand still for others, their process blocked on its full pipe. Each costs plakar's 160 MB, no time. */
export const PARKED_STREAMS_MAX = 2;

/** Opening an encrypted store takes plakar 1.5 s, a slow remote one several; a minute of silence is none of these. */
export const IDLE_TIMEOUT_MS_DEFAULT = 60_000;

/** plakar ends within milliseconds of SIGTERM unless its back-end hangs. */
export const KILL_GRACE_MS_DEFAULT = 2_000;

/** A start costs 0.05 to 1.5 s of a core: a client that retries in a loop must not turn that into a load. */
export const RETRY_PAUSE_MS_DEFAULT = 1_000;
export const RETRY_PAUSE_MS_MAX = 60_000;

/** Files remembered as failing; beyond it the oldest is forgotten, which costs one process too many, no more. */
export const FAILED_FILES_MAX = 1_000;

/** A file up to this many bytes may share a process with others: at 250 MiB/s it delays them by 4 ms. */
export const BATCH_FILE_BYTES_MAX = 1 * MiB;

/** Files of one process, and bytes of their names on its command line (the kernel allows 128 KiB an argument, 2 MiB in all). */
export const BATCH_FILES_MAX = 32;
export const BATCH_NAME_BYTES_MAX = 16 * KiB;

/** From this size on a file counts as long: long files never take the last free process from short ones. */
export const LONG_FILE_BYTES_MIN = 32 * MiB;

/** What is kept of a child's standard error, for messages. */
export const STDERR_BYTES_MAX = 4 * KiB;

/** Output read on after an error, so that the child can come to its end and say why. */
export const DRAIN_BYTES_MAX = 64 * KiB;
