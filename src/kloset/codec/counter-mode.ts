/** What AES-GCM-SIV's counter mode takes besides the cipher itself (RFC 8452, 4). The WebAssembly kernel has a twin of this file. */
import { KiB } from '../../core/units.ts';

const BLOCK_BYTES = 16;
const COUNTERS_BYTES_MAX = 64 * KiB;

/** As Kernels.counters; with scratch memory of its own. */
export function createCounters(): (block: Uint8Array, counter: number, blocks: number) => Uint8Array {
  const bytes = new Uint8Array(COUNTERS_BYTES_MAX);
  const view = new DataView(bytes.buffer);
  return (block, counter, blocks) => {
    bytes.set(block);
    const end = blocks * BLOCK_BYTES;
    // Each round doubles what is there: a memory copy beats three writes a block.
    for (let filled = BLOCK_BYTES; filled < end; filled *= 2) bytes.copyWithin(filled, 0, filled);
    // setUint32 takes the counter modulo 2^32: the wrap without a carry.
    for (let index = 0; index < blocks; index++) view.setUint32(index * BLOCK_BYTES, counter + index, true);
    return bytes.subarray(0, end);
  };
}

/** As Kernels.xor. */
export function xor(ciphertext: Uint8Array, keystream: Uint8Array, plain: Uint8Array): void {
  const bytes = plain.byteLength; // Read once: the getter is a call a byte where Buffers and Uint8Arrays meet.
  for (let at = 0; at < bytes; at++) plain[at] = ciphertext[at]! ^ keystream[at]!;
}
