/**
 * The kernels in WebAssembly. Inputs are copied into the instance's memory and results out of it: at most one LZ4 block
 * (4 MiB), its plain form and a window of history at a time, so the memory stays below 9 MiB whatever is decoded.
 */
import { copyBytes } from '../../core/copy-bytes.ts';
import { assert } from '../../core/errors.ts';
import { KiB, roundUp } from '../../core/units.ts';
import { addresses, instantiateKernels, type KernelInstance, SLACK_BYTES } from '../../core/wasm/instance.ts';
import type { Kernels, PolyvalKernel } from './kernels.ts';
import { type Lz4BlockTarget, malformedBlock } from './lz4-block.ts';

/** Bytes copied in at a time where input can be cut: stays in the processor's second-level cache. */
const WINDOW_BYTES = 64 * KiB;
const BLOCK_BYTES = 16;
const STRIPE_BYTES = 16;
const CHUNK_BYTES = 1024;
const DIGEST_BYTES = 32;
/** What the kernels return for a malformed LZ4 block: 0xffffffff, as the signed number it arrives as. */
const MALFORMED = -1;
const BLAKE3_KEYED_HASH = 16;
/** BLAKE3's initial value, the key of plain hashing: the words of SHA-256's, little-endian. */
const BLAKE3_IV = Buffer.from('67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b', 'hex');

export async function createWebAssemblyKernels(): Promise<Kernels> {
  const instance = await instantiateKernels();
  return {
    decodeLz4Block: (block, target) => decodeLz4Block(instance, block, target),
    measureLz4Block: (block) => measureLz4Block(instance, block),
    xxh32: (data) => xxh32(instance, data),
    polyval: createPolyval(instance),
    blake3: (data, key) => blake3(instance, data, key),
  };
}

function decodeLz4Block(instance: KernelInstance, block: Uint8Array, target: Lz4BlockTarget): number {
  const { bytes, start, end, history } = target;
  const from = addresses.data;
  const fromEnd = from + block.byteLength;
  const window = roundUp(fromEnd + SLACK_BYTES, BLOCK_BYTES);
  const to = window + start - history;
  const toEnd = to + end - start;
  const memory = instance.bytesUpTo(toEnd);
  copyBytes(block, memory, from);
  copyBytes(bytes.subarray(history, start), memory, window);
  const stop = instance.exports.decodeLz4Block(from, fromEnd, to, toEnd, window);
  if (stop === MALFORMED) throw malformedBlock();
  copyBytes(memory.subarray(to, stop), bytes, start);
  return start + stop - to;
}

function measureLz4Block(instance: KernelInstance, block: Uint8Array): number {
  const end = addresses.data + block.byteLength;
  instance.bytesUpTo(end).set(block, addresses.data);
  const plainBytes = instance.exports.measureLz4Block(addresses.data, end);
  if (plainBytes === MALFORMED) throw malformedBlock();
  return plainBytes;
}

function xxh32(instance: KernelInstance, data: Uint8Array): number {
  const memory = instance.bytesUpTo(addresses.data + WINDOW_BYTES);
  instance.exports.xxh32Start();
  const whole = data.byteLength - (data.byteLength % STRIPE_BYTES);
  for (let at = 0; at < whole; at += WINDOW_BYTES) {
    const window = data.subarray(at, Math.min(at + WINDOW_BYTES, whole));
    copyBytes(window, memory, addresses.data);
    instance.exports.xxh32Update(addresses.data, addresses.data + window.byteLength);
  }
  const tail = data.subarray(whole);
  memory.set(tail, addresses.data);
  return instance.exports.xxh32End(addresses.data, addresses.data + tail.byteLength, data.byteLength) >>> 0;
}

function createPolyval(instance: KernelInstance): PolyvalKernel {
  const [ciphertextAt, keystreamAt] = [addresses.data, addresses.data + WINDOW_BYTES];
  const memoryWith = (data: Uint8Array) => {
    assert(data.byteLength <= WINDOW_BYTES, 'POLYVAL takes 64 KiB at a time');
    const memory = instance.bytesUpTo(keystreamAt + WINDOW_BYTES);
    copyBytes(data, memory, ciphertextAt);
    return memory;
  };
  return {
    start(key) {
      memoryWith(key);
      instance.exports.polyvalStart(ciphertextAt);
    },
    decrypt(ciphertext, keystream, plain) {
      const memory = memoryWith(ciphertext);
      copyBytes(keystream, memory, keystreamAt);
      instance.exports.polyvalDecrypt(ciphertextAt, keystreamAt, ciphertextAt, ciphertext.byteLength);
      copyBytes(memory.subarray(ciphertextAt, ciphertextAt + ciphertext.byteLength), plain);
    },
    block(block) {
      memoryWith(block);
      instance.exports.polyvalBlock(ciphertextAt);
    },
    digest() {
      const end = addresses.polyvalState + BLOCK_BYTES;
      return instance.bytesUpTo(end).slice(addresses.polyvalState, end);
    },
  };
}

function blake3(instance: KernelInstance, data: Uint8Array, key: Uint8Array | undefined): Uint8Array {
  const memory = instance.bytesUpTo(addresses.data + WINDOW_BYTES);
  memory.set(key ?? BLAKE3_IV, addresses.blake3Key);
  instance.exports.blake3Start(key === undefined ? 0 : BLAKE3_KEYED_HASH);
  let at = 0;
  for (; data.byteLength - at > WINDOW_BYTES; at += WINDOW_BYTES) {
    copyBytes(data.subarray(at, at + WINDOW_BYTES), memory, addresses.data);
    instance.exports.blake3Update(addresses.data, WINDOW_BYTES / CHUNK_BYTES);
  }
  const rest = data.subarray(at);
  copyBytes(rest, memory, addresses.data);
  // The last chunk, whole or not, is another function's: it may be the tree's root.
  const chunks = Math.max(0, Math.ceil(rest.byteLength / CHUNK_BYTES) - 1);
  instance.exports.blake3Update(addresses.data, chunks);
  instance.exports.blake3End(addresses.data + chunks * CHUNK_BYTES, rest.byteLength - chunks * CHUNK_BYTES);
  return memory.slice(addresses.blake3Digest, addresses.blake3Digest + DIGEST_BYTES);
}
