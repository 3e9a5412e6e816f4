/** xxHash32 of blocks, in WebAssembly where this machine can run it. */
import { copyBytes } from './copy-bytes.ts';
import { assert } from './errors.ts';
import { BLOCK_SIZE } from './units.ts';
import { addresses, instantiateKernelsNow, type KernelInstance } from './wasm/instance.ts';
import { xxh32 } from './xxh32.ts';

/** Hashed at a time: 64 KiB stay in the processor's second-level cache. */
const WINDOW_BLOCKS = 16;
const WINDOW_BYTES = WINDOW_BLOCKS * BLOCK_SIZE;

let kernels: { readonly instance: KernelInstance | undefined } | undefined;

/**
 * A checksum for each block of `data`, whole blocks of 4096 bytes of which the first is number `first`: xxHash32 with the
 * block's number as its seed, so that a block in the wrong place does not pass. A change within one 32-bit word never
 * goes unseen, any other once in four thousand million times.
 */
export function xxh32Blocks(first: number, data: Uint8Array): Uint32Array {
  assert(data.length % BLOCK_SIZE === 0, 'checksums are of whole blocks');
  kernels ??= { instance: instantiateKernelsNow() };
  const checksums = new Uint32Array(data.length / BLOCK_SIZE);
  if (kernels.instance === undefined) xxh32BlocksInTypescript(first, data, checksums);
  else xxh32BlocksInWasm(kernels.instance, first, data, checksums);
  return checksums;
}

/** The twin of the kernel, for machines without its instructions. */
export function xxh32BlocksInTypescript(first: number, data: Uint8Array, checksums: Uint32Array): void {
  for (let at = 0; at < checksums.length; at++) {
    checksums[at] = xxh32(data.subarray(at * BLOCK_SIZE, (at + 1) * BLOCK_SIZE), first + at);
  }
}

/** Copies window by window into the kernels' memory; the results are behind it, little-endian as all of that memory. */
function xxh32BlocksInWasm(instance: KernelInstance, first: number, data: Uint8Array, checksums: Uint32Array): void {
  const results = addresses.data + WINDOW_BYTES;
  const memory = instance.bytesUpTo(results + WINDOW_BLOCKS * Uint32Array.BYTES_PER_ELEMENT);
  const words = new DataView(memory.buffer, results);
  for (let done = 0; done < checksums.length; done += WINDOW_BLOCKS) {
    const blocks = Math.min(WINDOW_BLOCKS, checksums.length - done);
    copyBytes(data.subarray(done * BLOCK_SIZE, (done + blocks) * BLOCK_SIZE), memory, addresses.data);
    instance.exports.xxh32Blocks(addresses.data, blocks, results, first + done);
    for (let at = 0; at < blocks; at++) checksums[done + at] = words.getUint32(4 * at, true);
  }
}
