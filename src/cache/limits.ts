/** Bounds of the disk cache; each with its unit and reason. */
import { GiB, KiB, MiB } from '../core/units.ts';

/** Plain bytes of a segment in files that are read from beginning to end: authenticating one takes well below a millisecond. */
export const SEGMENT_BYTES = 1 * MiB;

/** Plain bytes of a segment in files that are looked up in: a look-up reads and authenticates one or two. */
export const LOOKUP_SEGMENT_BYTES = 16 * KiB;

/** Segment size that a file's header may claim, bytes: what a reader allocates. */
export const SEGMENT_BYTES_MAX = 16 * MiB;

/** All files of the cache together, bytes: indexes and metadata of some 100 million files. The least recently used go first. */
export const CACHE_BYTES_MAX = 16 * GiB;

/** Age of a temporary file nobody has written to, milliseconds: its process is gone. */
export const LEFTOVER_AGE_MS = 60 * 60 * 1000;

/** Segments read ahead while the ones before them are authenticated. */
export const SEGMENTS_IN_FLIGHT_MAX = 4;

/** Plain bytes of a segment of a cached chunk: a read of 8 KiB reads and authenticates one, in some 20 us. */
export const CHUNK_SEGMENT_BYTES = 64 * KiB;

/** What a cached chunk counts for at least, bytes: its inode, its name and its last block. Bounds the number of files, too. */
export const CHUNK_FILE_BYTES_MIN = 16 * KiB;

/** The part of the chunks' share that one eviction makes free: listing all files is paid for by that many bytes written. */
export const CHUNK_EVICTION_PART = 16;

/** Space of its file system that cached chunks leave free: this, or a twentieth of a smaller one. */
export const DISK_FREE_BYTES_MIN = 1 * GiB;

/** Cached chunks open at once, descriptors: reads that hit one need not open it. A gigabyte of them; Node raises the limit of a process. */
export const OPEN_CHUNK_FILES_MAX = 512;

/** Names of cached chunks that are not computed anew, some 300 bytes each: those of eight gigabytes that are read here and there. */
export const RECENT_NAMES_MAX = 4096;

/** Age from which on a use is written to a cached chunk again, milliseconds: fresh enough to evict by, and no cost. */
export const USE_RECORD_AGE_MS = 60_000;

/** Chunks waiting to be written, bytes: what a disk that hangs for a moment must not cost. More are not cached. */
export const CHUNK_WRITES_BYTES_MAX = 32 * MiB;

/** How long a chunk waits for a good moment to be written, milliseconds: a query's way from one page to the next takes one. */
export const CHUNK_WRITE_DELAY_MS = 4;

/** After a failed write nothing is written for so long, milliseconds. */
export const CHUNK_WRITE_PAUSE_MS = 10_000;

/** How long closing waits for chunks to be written, milliseconds: what is not is fetched again some day. */
export const CHUNK_CLOSE_MS = 5_000;
