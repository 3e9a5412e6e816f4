import { BLOCK_SIZE } from '../core/units.ts';
import type { Change } from './block-store.ts';

const zeroBlock = Buffer.alloc(BLOCK_SIZE);

/** Whether the block at byte `at` of `bytes` is all zero. Its first and last byte settle most. */
export function isZeroBlock(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== 0 || bytes[at + BLOCK_SIZE - 1] !== 0) return false;
  return zeroBlock.compare(bytes, at, at + BLOCK_SIZE) === 0;
}

/** Appends `data`, whole blocks for the device from block `block` on, to `changes`: runs of zeroes and of other bytes. */
export function splitZeroBlocks(block: number, data: Uint8Array, changes: Change[]): void {
  for (let at = 0; at < data.length; ) {
    const zero = isZeroBlock(data, at);
    let end = at + BLOCK_SIZE;
    while (end < data.length && isZeroBlock(data, end) === zero) end += BLOCK_SIZE;
    const count = (end - at) / BLOCK_SIZE;
    changes.push({ block: block + at / BLOCK_SIZE, count, data: zero ? undefined : data.subarray(at, end) });
    at = end;
  }
}
