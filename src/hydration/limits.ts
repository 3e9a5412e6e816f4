/** Bounds of hydrating; each with its unit and reason. */
import { GiB, MiB } from '../core/units.ts';

/** A data file, bytes: a snapshot of a terabyte takes some 500, and one that is lost takes little with it. */
export const DATA_FILE_BYTES_MAX = 2 * GiB;

/** Data files held open for reading: together 128 GiB without opening one again. */
export const OPEN_DATA_FILES_MAX = 64;

/** Blobs that one directory takes: 16 bytes of memory each while it is open, so 2 GiB; more than 100 TiB of chunks. */
export const RECORDS_MAX = 2 ** 27;

/** What is written before it is made durable, bytes and blobs: what a crash costs, at most. */
export const COMMIT_BYTES = 64 * MiB;
export const COMMIT_BLOBS = 8192;
/** And milliseconds, where little is written. */
export const COMMIT_MS = 2000;

/** Stored bytes that clients' reads have brought and that wait to be written; what finds no room is fetched again later. */
export const OFFERED_BYTES_MAX = 16 * MiB;

/** Chunks fetched at once: hides the latency of a store over a network and leaves most of its requests to clients. */
export const CHUNKS_AT_ONCE_MAX = 4;
/** And their bytes, stored and plain; of a chunk with more there is one at a time. */
export const IN_FLIGHT_BYTES_MAX = 32 * MiB;

/** So long after a client's last fetch nothing is fetched for hydration, milliseconds: a scan's next read comes sooner. */
export const QUIET_MS = 200;
/** However busy clients are, one blob is fetched so often, milliseconds: hydrating ends some day. */
export const BUSY_STEP_MS = 1000;

/** Room that stays free on the disk: for the journal, and for whoever else writes to it. Bytes, and share of what is to come. */
export const FREE_BYTES_MIN = 64 * MiB;
export const FREE_SHARE_MIN = 0.01;

/** Pause before hydrating is tried again when the disk is full or the store is away, milliseconds: people free space. */
export const RETRY_MS = 30_000;

/** Between two lines of progress in the log, milliseconds. */
export const PROGRESS_MS = 10_000;

/** A directory that another process writes to is looked at again for what is new this often at most, milliseconds. */
export const LOOK_AGAIN_MS = 5000;

/** Records of the index read at once: some 900 KiB. */
export const RECORDS_AT_ONCE = 8192;

/** Damage that is named in the log; the rest is counted. */
export const DAMAGE_NAMED_MAX = 10;
