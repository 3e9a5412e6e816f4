/**
 * The inner loops that take nearly all of a decode's time. Each exists twice with one behaviour: in WebAssembly, and in
 * TypeScript for machines without its vector instructions and as a cross-check.
 */

import { supportsKernels } from '../../core/wasm/instance.ts';
import { xxh32 } from '../../core/xxh32.ts';
import { createCounters, xor } from './counter-mode.ts';
import { decodeLz4Block, type Lz4BlockTarget, measureLz4Block } from './lz4-block.ts';
import { Polyval } from './polyval.ts';
import { createWebAssemblyKernels } from './wasm-kernels.ts';

/** One thread's kernels; they hold scratch memory and the state of one hash at a time. */
export interface Kernels {
  /**
   * Two buffers in the kernels' own memory, of `innerBytes` and `plainBytes` bytes and of any content: what lies there is
   * worked on without being copied in or out. Valid until the next workspace, or until an LZ4 block that lies elsewhere is
   * decoded or measured; BLAKE3 of a part overwrites the 64 bytes behind it. Undefined if they would be too large, or if
   * there is no such memory.
   */
  workspace(innerBytes: number, plainBytes: number): Workspace | undefined;
  /** As decodeLz4Block in lz4-block.ts. */
  decodeLz4Block(block: Uint8Array, target: Lz4BlockTarget): number;
  /** As measureLz4Block in lz4-block.ts. */
  measureLz4Block(block: Uint8Array): number;
  /** As xxh32 in core/xxh32.ts, seed 0. */
  xxh32(data: Uint8Array): number;
  /**
   * Counter blocks of AES-GCM-SIV, at most 64 KiB: `block` again and again, its first word, little-endian, counting on from
   * `counter` and modulo 2^32. Valid until the next call.
   */
  counters(block: Uint8Array, counter: number, blocks: number): Uint8Array;
  /** Writes `ciphertext ^ keystream` to `plain`, all three as long: at most 64 KiB. */
  xor(ciphertext: Uint8Array, keystream: Uint8Array, plain: Uint8Array): void;
  readonly polyval: PolyvalKernel;
  /** BLAKE3-256, in keyed mode if there is a key of 32 bytes. Undefined: hash-wasm, slower, has to do it. */
  readonly blake3: ((data: Uint8Array, key: Uint8Array | undefined) => Uint8Array) | undefined;
}

export interface Workspace {
  readonly inner: Uint8Array;
  readonly plain: Uint8Array;
}

/** As Polyval in polyval.ts. */
export interface PolyvalKernel {
  /** Begins a new hash under `key`, 16 bytes. */
  start(key: Uint8Array): void;
  /**
   * Writes `ciphertext ^ keystream` to `plain` and adds that to the hash: at most 64 KiB. A last block that is not whole
   * counts as padded with zeroes, so only the last call may have one. `keystream` is as long, rounded up to blocks.
   */
  decrypt(ciphertext: Uint8Array, keystream: Uint8Array, plain: Uint8Array): void;
  /** Adds 16 bytes. */
  block(block: Uint8Array): void;
  /** The hash of all since `start`: 16 bytes, a fresh buffer. */
  digest(): Uint8Array;
}

/** Which kernels to run: the fastest that run here, unless a test wants certain ones. */
export type KernelChoice = 'fastest' | 'webassembly' | 'typescript';

export async function createKernels(choice: KernelChoice = 'fastest'): Promise<Kernels> {
  if (choice === 'webassembly' || (choice === 'fastest' && supportsKernels())) return createWebAssemblyKernels();
  return createTypescriptKernels();
}

export function createTypescriptKernels(): Kernels {
  return {
    workspace: () => undefined,
    decodeLz4Block,
    measureLz4Block,
    xxh32,
    counters: createCounters(),
    xor,
    polyval: new Polyval(),
    blake3: undefined,
  };
}
