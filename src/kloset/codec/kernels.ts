/**
 * The inner loops that take nearly all of a decode's time. Each exists twice with one behaviour: in WebAssembly, and in
 * TypeScript for machines without its vector instructions and as a cross-check.
 */
import { decodeLz4Block, type Lz4BlockTarget, measureLz4Block } from './lz4-block.ts';
import { xxh32 } from './xxh32.ts';

export interface Kernels {
  /** As decodeLz4Block in lz4-block.ts. */
  decodeLz4Block(block: Uint8Array, target: Lz4BlockTarget): number;
  /** As measureLz4Block in lz4-block.ts. */
  measureLz4Block(block: Uint8Array): number;
  /** As xxh32 in xxh32.ts. */
  xxh32(data: Uint8Array): number;
}

export const typescriptKernels: Kernels = { decodeLz4Block, measureLz4Block, xxh32 };
