/** What a block map says about a device: which stretches are changed, and where the bytes of a range come from. */
import type { ReadableDevice } from '../core/device.ts';
import { assert } from '../core/errors.ts';
import type { StopOptions } from '../core/stop.ts';
import { BLOCK_SIZE, type ByteRange } from '../core/units.ts';
import { type BlockMap, isZeroValue } from './block-map.ts';
import type { BlockStore } from './block-store.ts';

/** A stretch of the device in one state. `offset` and `length` are bytes, multiples of BLOCK_SIZE. */
export interface OverlayRange extends ByteRange {
  /** data: the overlay has the bytes; zero: it reads as zeroes; clean: it is the base's. */
  readonly state: 'data' | 'zero' | 'clean';
}

/** The states of a range of whole blocks, in order and without gaps; neighbours may share a state. */
export function* rangesOf(map: BlockMap, range: ByteRange): Generator<OverlayRange> {
  assert(range.offset % BLOCK_SIZE === 0 && range.length % BLOCK_SIZE === 0, 'states are kept by whole blocks');
  const end = (range.offset + range.length) / BLOCK_SIZE;
  for (let block = range.offset / BLOCK_SIZE; block < end; ) {
    const { count, value } = map.runAt(block, end);
    const state = value === undefined ? 'clean' : isZeroValue(value) ? 'zero' : 'data';
    yield { offset: block * BLOCK_SIZE, length: count * BLOCK_SIZE, state };
    block += count;
  }
}

export interface ReadPlaces {
  readonly map: BlockMap;
  readonly store: Pick<BlockStore, 'read'>;
  readonly base: Pick<ReadableDevice, 'read'>;
}

/** Fills `target` from byte `offset` of the device that the map makes of store and base. All parts are looked up in this turn. */
export async function readThrough(
  { map, store, base }: ReadPlaces,
  offset: number,
  target: Uint8Array,
  options?: StopOptions,
): Promise<void> {
  const end = offset + target.length;
  const endBlock = Math.ceil(end / BLOCK_SIZE);
  const parts: Promise<void>[] = [];
  for (let at = offset; at < end; ) {
    const { first, count, value } = map.runAt(Math.floor(at / BLOCK_SIZE), endBlock);
    const until = Math.min(end, (first + count) * BLOCK_SIZE);
    const part = target.subarray(at - offset, until - offset);
    if (value === undefined) parts.push(base.read(at, part, options));
    else if (isZeroValue(value)) part.fill(0);
    else parts.push(store.read({ first, value }, at - first * BLOCK_SIZE, part));
    at = until;
  }
  await settleAll(parts);
}

/** Waits for all, then fails if one failed: the caller's buffer must not be written to after it has been told. */
async function settleAll(parts: readonly Promise<void>[]): Promise<void> {
  if (parts.length === 1) return parts[0];
  for (const result of await Promise.allSettled(parts)) {
    if (result.status === 'rejected') throw result.reason;
  }
}
