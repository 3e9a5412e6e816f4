/** What crosses between threads. */

/** Decode `stored` into all of `target` and compare its MAC; without `stored` only compare. Shared memory is not copied. */
export interface ChunkTask {
  readonly stored?: Uint8Array;
  readonly target: Uint8Array;
  readonly mac: Uint8Array;
}
