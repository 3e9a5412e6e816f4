/**
 * The inner loops that take nearly all of a decode's time. Each exists twice with one behaviour: in WebAssembly, and in
 * TypeScript for machines without its vector instructions and as a cross-check.
 */
import { decodeLz4Block, type Lz4BlockTarget, measureLz4Block } from './lz4-block.ts';
import { Polyval } from './polyval.ts';
import { xxh32 } from './xxh32.ts';

/** One thread's kernels; they hold scratch memory and the state of one hash at a time. */
export interface Kernels {
  /** As decodeLz4Block in lz4-block.ts. */
  decodeLz4Block(block: Uint8Array, target: Lz4BlockTarget): number;
  /** As measureLz4Block in lz4-block.ts. */
  measureLz4Block(block: Uint8Array): number;
  /** As xxh32 in xxh32.ts. */
  xxh32(data: Uint8Array): number;
  readonly polyval: PolyvalKernel;
}

/** As Polyval in polyval.ts. */
export interface PolyvalKernel {
  start(key: Uint8Array): void;
  /** Writes `ciphertext ^ keystream` to `plain` and adds that to the hash; `keystream` is at least as long as both. */
  decrypt(ciphertext: Uint8Array, keystream: Uint8Array, plain: Uint8Array): void;
  update(data: Uint8Array): void;
  digest(): Uint8Array;
}

export function createTypescriptKernels(): Kernels {
  return { decodeLz4Block, measureLz4Block, xxh32, polyval: new Polyval() };
}
