/** Bounds on what a store may make the reader allocate, open or loop over; each with its unit and reason. */
import { GiB, KiB, MiB } from '../core/units.ts';

/** CONFIG is a few hundred bytes; plakar itself refuses more than this in archives. */
export const CONFIG_BYTES_MAX = 32 * KiB;

/** A state as stored, bytes: about 133 bytes a small file; this is some 15 million of them in one backup. */
export const STATE_BYTES_MAX = 2 * GiB - 1;

/** A state decoded, bytes: the largest Buffer every supported Node can make. */
export const STATE_PLAIN_BYTES_MAX = 4 * GiB;

/** States read and decoded at once. */
export const STATES_IN_FLIGHT_MAX = 8;

/** Packfiles held open; well below the usual limit of 1,024 descriptors. */
export const OPEN_PACKFILES_MAX = 128;

/**
 * A packfile that is read as a whole because nothing else covers a snapshot's header in it, bytes. The writer closes one
 * at 64 MiB, plus a chunk, padding and index; only an archive's is larger, and reading all of that for a list would not do.
 */
export const CHECKED_PACKFILE_BYTES_MAX = 128 * MiB;

/** What is read of such a packfile at once, bytes: enough that a request's latency does not count. */
export const PACKFILE_WINDOW_BYTES = 4 * MiB;

/** A metadata blob (tree node, entry, object, header) once decoded, bytes. An object takes about 100 bytes a chunk: 256 GiB in one file. */
export const METADATA_BLOB_BYTES_MAX = 64 * MiB;

/** Chunking.MaxSize that CONFIG may claim, bytes. The writer's default is 8 MiB. */
export const CHUNK_BYTES_MAX = 64 * MiB;

/** Content read into memory as a whole, bytes: a directory's pack (some 300 bytes an entry) or an attribute's value. */
export const WHOLE_CONTENT_BYTES_MAX = 2 * GiB - 1;

/** Metadata blobs fetched at once. */
export const METADATA_IN_FLIGHT_MAX = 16;

/** Levels of a B+tree: 50 keys a node make more than a billion of billions at this depth; a deeper one is a cycle. */
export const TREE_DEPTH_MAX = 12;

/** What a stored value may exceed its plain size by: segments' nonces and tags, frames' headers, incompressible blocks. */
export function storedBytesMax(plainBytes: number): number {
  return 2 * plainBytes + 64 * KiB;
}

/** Locations of an index in memory, some 60 bytes each; a cached index with more is looked up on disk. */
export const LOCATIONS_IN_MEMORY_MAX = 2_000_000;

/** Segments of an index on disk that are kept, bytes. */
export const INDEX_SEGMENTS_BYTES_MAX = 32 * MiB;
