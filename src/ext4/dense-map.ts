/**
 * Dense and physical block numbers. Everything is allocated in a dense numbering that does not know the backups of
 * superblock and group descriptors; those sit at the start of groups 1 and 3^k, 5^k, 7^k (sparse_super, blockgroup.rst)
 * and are obstacles to step over when a dense number becomes a physical one. There are at most a few dozen.
 */
import { BLOCKS_PER_GROUP } from './format.ts';

/** A stretch of one file that is contiguous on the device. All in blocks. */
export interface Piece {
  /** From the start of the dense range that was cut. */
  readonly logical: number;
  readonly physical: number;
  readonly length: number;
}

/** The groups above 0 that carry backups, ascending. */
export function backupGroups(groupCount: number): number[] {
  const groups: number[] = groupCount > 1 ? [1] : [];
  for (const base of [3, 5, 7]) {
    for (let group = base; group < groupCount; group *= base) groups.push(group);
  }
  return groups.sort((a, b) => a - b);
}

export class DenseMap {
  readonly groupCount: number;
  /** Blocks of one backup: superblock, group descriptors, reserved descriptors. */
  readonly backupBlocks: number;
  readonly backups: readonly number[];
  /** Physical start of each backup, and the dense number of the first block behind it. */
  readonly #physical: readonly number[];
  readonly #dense: readonly number[];

  constructor(groupCount: number, backupBlocks: number) {
    this.groupCount = groupCount;
    this.backupBlocks = backupBlocks;
    this.backups = backupGroups(groupCount);
    this.#physical = this.backups.map((group) => group * BLOCKS_PER_GROUP);
    this.#dense = this.#physical.map((start, i) => start - i * backupBlocks);
  }

  toPhysical(dense: number): number {
    return dense + countUpTo(this.#dense, dense) * this.backupBlocks;
  }

  /** The dense number of a physical block, or -1 inside a backup. */
  toDense(physical: number): number {
    const before = countUpTo(this.#physical, physical);
    if (before > 0 && physical < this.#physical[before - 1]! + this.backupBlocks) return -1;
    return physical - before * this.backupBlocks;
  }

  /** The backup a physical block lies in: its group and the block's index in it. */
  backupAt(physical: number): { group: number; index: number } | undefined {
    const before = countUpTo(this.#physical, physical);
    if (before === 0) return undefined;
    const index = physical - this.#physical[before - 1]!;
    return index < this.backupBlocks ? { group: this.backups[before - 1]!, index } : undefined;
  }

  hasBackup(group: number): boolean {
    return this.backups.includes(group);
  }

  /** Blocks of backups in groups that begin at or behind a physical block. */
  backupBlocksFrom(physical: number): number {
    return (this.backups.length - countUpTo(this.#physical, physical - 1)) * this.backupBlocks;
  }

  /** Physical start of the next backup behind a block that is in none; Infinity behind the last. */
  nextBackup(physical: number): number {
    return this.#physical[countUpTo(this.#physical, physical)] ?? Number.POSITIVE_INFINITY;
  }

  /** The dense number at which the first backup behind `dense` interrupts the physical run; Infinity without one. */
  nextInterruption(dense: number): number {
    return this.#dense[countUpTo(this.#dense, dense)] ?? Number.POSITIVE_INFINITY;
  }

  /** Cuts a dense range at the backups. */
  pieces(dense: number, length: number): Piece[] {
    const pieces: Piece[] = [];
    for (let done = 0; done < length; ) {
      const here = Math.min(length - done, this.nextInterruption(dense + done) - dense - done);
      pieces.push({ logical: done, physical: this.toPhysical(dense + done), length: here });
      done += here;
    }
    return pieces;
  }
}

/** How many of the ascending values are <= limit. */
function countUpTo(values: readonly number[], limit: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
