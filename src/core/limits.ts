/**
 * Every bound on input, queues and memory: unit in the name, the reason beside it. What an option changes has its
 * default here.
 */
import { GiB, KiB, MiB } from './units.ts';

/** Largest device that takes writes, bytes (16 TiB): overlays count blocks in 32 bits. */
export const WRITABLE_DEVICE_BYTES_MAX = 16 * 1024 * GiB;

/** Decoded chunks kept in memory, bytes; `--cache-memory`. Fits the hot set of a small database; a chunk has at most 8 MiB. */
export const CACHE_MEMORY_BYTES_DEFAULT = 256 * MiB;

/** Decoded chunks kept on disk, of all stores together, bytes; `--cache-disk`. Holds what a database of some ten GiB is asked for. */
export const CACHE_DISK_BYTES_DEFAULT = 4 * GiB;

/** Bytes being fetched, decoded or written to clients at once; `--inflight-memory`. A dozen of the largest chunks, with their stored form. */
export const INFLIGHT_MEMORY_BYTES_DEFAULT = 128 * MiB;

/** Bytes a volatile overlay keeps in memory before it spills to a file; `--overlay-memory-limit`. */
export const OVERLAY_MEMORY_BYTES_DEFAULT = 1 * GiB;

/** Below this many plain bytes a chunk is decoded in the main thread: a task of the pool costs 50-180 us whatever its size. */
export const INLINE_DECODE_BYTES_MAX = 128 * KiB;
