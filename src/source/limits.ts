/** Bounds of reading files; each with its unit and reason. */
import { CHUNK_SEGMENT_BYTES } from '../cache/limits.ts';
import { MiB } from '../core/units.ts';

/** Chunk tables kept, bytes: about 200 a chunk, so some 300 GiB of files whose chunks have a megabyte. */
export const CHUNK_TABLES_BYTES_MAX = 64 * MiB;

/** Chunk tables that all snapshots of a store share, bytes: those of a hundred thousand small files, or of 400 GiB of large ones. */
export const SHARED_TABLES_BYTES_MAX = 16 * MiB;

/** Chunks one read may wait for at once: a 32 MiB request of half-megabyte chunks, in two rounds. */
export const CHUNKS_PER_READ_IN_FLIGHT_MAX = 32;

/** Chunks whose fetching is remembered, to count those fetched twice: some 40 bytes each. A Set ends at 2 ** 24. */
export const COUNTED_CHUNKS_MAX = 2 ** 22;

/** Directories read at once while a snapshot is opened. */
export const DIRECTORIES_IN_FLIGHT_MAX = 16;

/** One extended attribute's value, bytes: the kernel's own limit is 64 KiB. */
export const ATTRIBUTE_BYTES_MAX = 1 * MiB;

/** Entries looked through for the next file with content, by the way of a read: a level of nothing but directories ends reading ahead. */
export const ENTRIES_BETWEEN_FILES_MAX = 4096;

/** Chunks fetched ahead at once, by all who guess together: enough that a store far away is kept busy, few enough that a thread is soon free. */
export const GUESSES_IN_FLIGHT_MAX = 8;

/** Plain bytes of them: a chunk has at most 8 MiB. */
export const GUESSED_BYTES_IN_FLIGHT_MAX = 32 * MiB;

/** Plain bytes of a segment in memory: one as the disk cache has it. */
export const SEGMENT_BYTES = CHUNK_SEGMENT_BYTES;

/** Segments dropped that are remembered, some 200 bytes each: those of a gigabyte. */
export const GHOSTS_MAX = 16_384;

/** Segments of a chunk read from disk at once for one reader. */
export const SEGMENTS_IN_FLIGHT_MAX = 4;

/** Chunks whose segments are recalled at once: the thread that reads them always has a next one. */
export const RECALLS_IN_FLIGHT_MAX = 4;

/** Chunks remembered that a busy disk has not taken: far more than memory holds by default. */
export const UNWRITTEN_CHUNKS_MAX = 4096;
