/** Bounds and defaults of reading a store over a network; each with its unit and reason. */
import { KiB, MiB } from '../core/units.ts';

/** Requests to a store under way at once; `--fetch-concurrency`. Enough to hide 30 ms of latency, polite to a server. */
export const FETCH_CONCURRENCY_DEFAULT = 16;

/** Most that `--fetch-concurrency` takes: beyond it sockets, not the store, are what is waited for. */
export const FETCH_CONCURRENCY_MAX = 1024;

/** How long a read keeps trying before it fails, milliseconds; `--fetch-timeout`. Kernels give up on a disk later than that. */
export const FETCH_TIMEOUT_MS_DEFAULT = 60_000;

/** One attempt at a range, milliseconds: three fit the budget, and 8 MiB arrive in one at 3.5 Mbit/s. */
export const REQUEST_TIMEOUT_MS = 20_000;

/** No byte for this long, milliseconds, and a request counts as stalled: servers of cold storage take seconds. */
export const STALL_TIMEOUT_MS = 10_000;

/** Attempts at something that ends too early: it may be the way, a few times; then it is the store. */
export const SHORT_READ_ATTEMPTS_MAX = 3;

/** Pause before the second attempt, milliseconds; doubled for each further one up to the maximum. */
export const BACKOFF_MS_FIRST = 100;
export const BACKOFF_MS_MAX = 5_000;

/** What one request of a read-ahead brings, bytes: 20 ms at 100 Mbit/s, some 300 metadata blobs of one backup side by side. */
export const READ_AHEAD_WINDOW_BYTES = 256 * KiB;

/** Reads above this many bytes are chunks of large files: nothing near them need be wanted. */
export const READ_AHEAD_READ_BYTES_MAX = 64 * KiB;

/** Ranges fetched as one, bytes from first to last: copied once, so with all places taken it is 64 MiB. */
export const MERGED_BYTES_MAX = 4 * MiB;

/** What may lie unwanted between two ranges that are fetched as one, bytes: 5 ms at 100 Mbit/s, less than a round trip. */
export const MERGED_GAP_BYTES_MAX = 64 * KiB;

/** Windows kept, bytes: the metadata being walked through, in several packfiles at once. */
export const READ_AHEAD_BYTES_MAX = 16 * MiB;

/** Answer to a listing, bytes: 67 a resource make it two million packfiles, more than 100 TiB of store. */
export const LISTING_BYTES_MAX = 128 * MiB;

/** Keys listed below a prefix of an object store, for the same reason. */
export const LISTING_KEYS_MAX = 4_000_000;

/** What is read of an error's text, bytes. */
export const ERROR_TEXT_BYTES_MAX = 4 * KiB;

/** plakar's configuration file, bytes: hundreds of stores take some 100 KiB. */
export const PLAKAR_CONFIG_BYTES_MAX = 4 * MiB;

/** How often states are listed again, milliseconds; `--refresh`. Backups and maintenance run hourly at most. */
export const REFRESH_MS_DEFAULT = 5 * 60_000;

/** States are not listed again for a missing packfile this soon after they were, milliseconds. */
export const REFRESH_WHEN_MISSING_MS = 5_000;
