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
