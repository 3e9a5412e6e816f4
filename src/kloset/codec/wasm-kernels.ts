/**
 * The kernels in WebAssembly. What lies in the workspace, a part of the instance's memory, they work on where it is. Other
 * inputs are copied into that memory and results out of it: at most one LZ4 block (4 MiB), its plain form and a window of
 * history at a time. So the memory stays below the workspace's limit, whatever is decoded.
 */
import { copyBytes } from '../../core/copy-bytes.ts';
import { assert } from '../../core/errors.ts';
import { KiB, MiB, roundUp } from '../../core/units.ts';
import { addresses, instantiateKernels, type KernelInstance, SLACK_BYTES } from '../../core/wasm/instance.ts';
import type { Kernels, PolyvalKernel, Workspace } from './kernels.ts';
import { type Lz4BlockTarget, malformedBlock } from './lz4-block.ts';

/** Bytes copied in at a time where input can be cut: stays in the processor's second-level cache. */
const WINDOW_BYTES = 64 * KiB;
/** Two such windows, and what lies behind them. */
const FIRST_WINDOW = addresses.data;
const SECOND_WINDOW = FIRST_WINDOW + WINDOW_BYTES + SLACK_BYTES;
const WINDOWS_END = SECOND_WINDOW + WINDOW_BYTES + SLACK_BYTES;
/** Both of its buffers, bytes: a chunk of 8 MiB and its stored form, which is hardly ever larger. */
const WORKSPACE_BYTES_MAX = 17 * MiB;
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
    workspace: (innerBytes, plainBytes) => workspace(instance, innerBytes, plainBytes),
    decodeLz4Block: (block, target) => decodeLz4Block(instance, block, target),
    measureLz4Block: (block) => measureLz4Block(instance, block),
    xxh32: (data) => xxh32(instance, data),
    counters: (block, counter, blocks) => counters(instance, block, counter, blocks),
    xor: (ciphertext, keystream, plain) => xor(instance, ciphertext, keystream, plain),
    polyval: createPolyval(instance),
    blake3: (data, key) => blake3(instance, data, key),
  };
}

/** Behind the windows that other kernels copy to. */
function workspace(instance: KernelInstance, innerBytes: number, plainBytes: number): Workspace | undefined {
  if (innerBytes + plainBytes > WORKSPACE_BYTES_MAX) return undefined;
  const inner = WINDOWS_END;
  const plain = roundUp(inner + innerBytes + SLACK_BYTES, BLOCK_BYTES);
  const memory = instance.bytesUpTo(plain + plainBytes);
  return {
    inner: memory.subarray(inner, inner + innerBytes),
    plain: memory.subarray(plain, plain + plainBytes),
  };
}

function decodeLz4Block(instance: KernelInstance, block: Uint8Array, target: Lz4BlockTarget): number {
  const { bytes, start, end, history } = target;
  const [blockAt, bytesAt] = [instance.addressOf(block), instance.addressOf(bytes)];
  if (blockAt !== undefined && bytesAt !== undefined) {
    const places = [blockAt + block.byteLength, bytesAt + start, bytesAt + end, bytesAt + history] as const;
    const stop = instance.exports.decodeLz4Block(blockAt, ...places);
    if (stop === MALFORMED) throw malformedBlock();
    return stop - bytesAt;
  }
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

function counters(instance: KernelInstance, block: Uint8Array, counter: number, blocks: number): Uint8Array {
  assert(blocks * BLOCK_BYTES <= WINDOW_BYTES, 'counter blocks are made for 64 KiB at a time');
  const memory = instance.bytesUpTo(WINDOWS_END);
  memory.set(block, SECOND_WINDOW);
  instance.exports.countBlocks(SECOND_WINDOW, blocks, counter);
  return memory.subarray(SECOND_WINDOW, SECOND_WINDOW + blocks * BLOCK_BYTES);
}

function xor(instance: KernelInstance, ciphertext: Uint8Array, keystream: Uint8Array, plain: Uint8Array): void {
  assert(plain.byteLength <= WINDOW_BYTES, 'XOR takes 64 KiB at a time');
  const memory = instance.bytesUpTo(WINDOWS_END);
  const plainAt = instance.addressOf(plain);
  const at = plainAt ?? FIRST_WINDOW;
  copyBytes(ciphertext, memory, at);
  copyBytes(keystream, memory, SECOND_WINDOW);
  instance.exports.xorInto(at, SECOND_WINDOW, plain.byteLength);
  if (plainAt === undefined) copyBytes(memory.subarray(at, at + plain.byteLength), plain);
}

function createPolyval(instance: KernelInstance): PolyvalKernel {
  const [ciphertextAt, keystreamAt] = [FIRST_WINDOW, SECOND_WINDOW];
  const memoryWith = (data: Uint8Array) => {
    assert(data.byteLength <= WINDOW_BYTES, 'POLYVAL takes 64 KiB at a time');
    const memory = instance.bytesUpTo(WINDOWS_END);
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
  const memory = instance.bytesUpTo(WINDOWS_END);
  memory.set(key ?? BLAKE3_IV, addresses.blake3Key);
  instance.exports.blake3Start(key === undefined ? 0 : BLAKE3_KEYED_HASH);
  const dataAt = instance.addressOf(data);
  let at = 0;
  for (; dataAt === undefined && data.byteLength - at > WINDOW_BYTES; at += WINDOW_BYTES) {
    copyBytes(data.subarray(at, at + WINDOW_BYTES), memory, FIRST_WINDOW);
    instance.exports.blake3Update(FIRST_WINDOW, WINDOW_BYTES / CHUNK_BYTES);
  }
  const rest = data.subarray(at);
  const restAt = dataAt ?? FIRST_WINDOW;
  if (dataAt === undefined) copyBytes(rest, memory, FIRST_WINDOW);
  // The last chunk, whole or not, is another function's: it may be the tree's root.
  const chunks = Math.max(0, Math.ceil(rest.byteLength / CHUNK_BYTES) - 1);
  instance.exports.blake3Update(restAt, chunks);
  instance.exports.blake3End(restAt + chunks * CHUNK_BYTES, rest.byteLength - chunks * CHUNK_BYTES);
  return memory.slice(addresses.blake3Digest, addresses.blake3Digest + DIGEST_BYTES);
}
