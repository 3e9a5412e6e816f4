/**
 * How many blocks a directory has, from the lengths of its names alone: hashing waits until one of its blocks is read.
 *
 * Names that fit one block are listed in it. More make a hash tree (directory.rst): block 0 the root, then the inner
 * nodes, level by level from the top, then the leaves. Leaves are cut every LEAF_BYTES of records in hash order, so their
 * number is known from the sum of record lengths; each holds at least one record, and at most LEAF_BYTES + 263 bytes
 * whatever the order. That leaves some 20 % for new names before a leaf must split, as FAN_OUT does in the nodes.
 */
import { assert } from '../core/errors.ts';
import { DIRECTORY_BYTES, DIRECTORY_DOTS_BYTES } from './format.ts';

export const LEAF_BYTES = 3264;
/** Entries per node; the root takes 507, a node 510. */
export const FAN_OUT = 400;
/** e2fsck and the kernel go no deeper, even with largedir. */
const LEVELS_MAX = 2;

export interface DirectoryShape {
  readonly leaves: number;
  /** Blocks of each level of inner nodes, from the top: none, one or two levels. Two need the feature largedir. */
  readonly nodes: readonly number[];
  readonly blocks: number;
}

/** The shape for records of so many bytes in all; undefined if they fit one block beside `.` and `..`. */
export function indexedShape(recordBytesSum: number): DirectoryShape | undefined {
  if (DIRECTORY_DOTS_BYTES + recordBytesSum <= DIRECTORY_BYTES) return undefined;
  const leaves = Math.ceil(recordBytesSum / LEAF_BYTES);
  const nodes: number[] = [];
  for (let below = leaves; below > FAN_OUT; ) {
    below = Math.ceil(below / FAN_OUT);
    nodes.unshift(below);
  }
  assert(nodes.length <= LEVELS_MAX, 'a directory has at most 64 million leaves');
  return { leaves, nodes, blocks: 1 + nodes.reduce((sum, count) => sum + count, 0) + leaves };
}

/** Blocks of a directory, its extent tree not counted. */
export function directoryBlocks(recordBytesSum: number): number {
  return indexedShape(recordBytesSum)?.blocks ?? 1;
}
