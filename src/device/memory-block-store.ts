/**
 * Blocks in main memory, beyond a limit in a file that is gone with the process. Volatile: FLUSH and FUA succeed because
 * nothing is promised.
 *
 * Places below `#memorySlots` are in slabs, where blocks are overwritten; higher ones in the spill file, where they move.
 * Memory is copied to within one turn of the event loop, so only the spill file needs `UseEpochs`: a freed place in it is
 * given away when no read or write that knew it is in flight any more.
 */
import { assert, OverlayError } from '../core/errors.ts';
import { BLOCK_SIZE, MiB } from '../core/units.ts';
import { BlockMap, isZeroValue, ZERO_FLAG } from './block-map.ts';
import type { BlockStore, Change, OverlayStats } from './block-store.ts';
import { overlayFailure } from './file-errors.ts';
import type { MemoryBudget } from './memory-budget.ts';
import { SlotAllocator } from './slot-allocator.ts';
import type { SpillFile } from './spill-file.ts';
import { UseEpochs } from './use-epochs.ts';

const SLAB_BYTES = 1 * MiB;
const SLAB_SLOTS = SLAB_BYTES / BLOCK_SIZE;

/** Consecutive blocks for the spill file, at places from `slot` on that the map does not know yet. */
interface SpillWrite {
  readonly block: number;
  readonly slot: number;
  readonly data: Uint8Array;
}

export class MemoryBlockStore implements BlockStore {
  readonly map = new BlockMap();
  readonly readOnlyReason = undefined;
  readonly #budget: MemoryBudget;
  readonly #memorySlots: number;
  readonly #memory: SlotAllocator;
  readonly #spilled: SlotAllocator;
  readonly #slabs: (Buffer | undefined)[] = [];
  readonly #slabUse: number[] = [];
  readonly #spill: SpillFile;
  readonly #epochs = new UseEpochs();
  #acknowledgedBytes = 0;
  #writtenBytes = 0;

  /** Keeps in memory what `budget` allows; owns `spill`. */
  constructor({ budget, spill }: { budget: MemoryBudget; spill: SpillFile }) {
    this.#budget = budget;
    this.#memorySlots = Math.floor(budget.bytesMax / BLOCK_SIZE);
    this.#memory = new SlotAllocator(this.#memorySlots);
    this.#spilled = new SlotAllocator(ZERO_FLAG - this.#memorySlots);
    this.#spill = spill;
  }

  async apply(changes: readonly Change[]): Promise<void> {
    const spills = this.#place(changes);
    if (spills.length > 0) await this.#writeSpills(spills);
  }

  applyNow(changes: readonly Change[]): boolean {
    const bytes = changes.reduce((sum, { data }) => sum + (data?.length ?? 0), 0);
    if (this.#spilled.used > 0 || bytes > this.#budget.freeBytes) return false;
    const spills = this.#place(changes);
    assert(spills.length === 0, 'what fits in memory is not spilled');
    return true;
  }

  /** Copies what has or gets a place in memory; returns the rest. */
  #place(changes: readonly Change[]): readonly SpillWrite[] {
    const spills: SpillWrite[] = [];
    for (const { block, count, data } of changes) {
      if (data === undefined) this.#set(block, count, ZERO_FLAG);
      else {
        this.#placeData(block, count, data, spills);
        this.#acknowledgedBytes += data.length;
      }
    }
    return spills;
  }

  async read(
    { first, value }: { readonly first: number; readonly value: number },
    skip: number,
    target: Uint8Array,
  ): Promise<void> {
    const { slot, within, inMemory } = this.#placeOf(value, skip);
    if (inMemory > 0) this.#readMemory(slot * BLOCK_SIZE + within, target.subarray(0, inMemory));
    if (target.length <= inMemory) return;
    const epoch = this.#epochs.enter();
    try {
      const position = slot * BLOCK_SIZE + within + inMemory - this.#memorySlots * BLOCK_SIZE;
      const spilled = Math.floor(position / BLOCK_SIZE);
      await this.#spill.read(spilled, position - spilled * BLOCK_SIZE, target.subarray(inMemory));
    } catch (cause) {
      throw overlayFailure(`cannot read block ${first + Math.floor(skip / BLOCK_SIZE)} from the spill file`, cause);
    } finally {
      this.#epochs.leave(epoch);
    }
  }

  readNow({ value }: { readonly value: number }, skip: number, target: Uint8Array): boolean {
    const { slot, within, inMemory } = this.#placeOf(value, skip);
    if (target.length > inMemory) return false;
    this.#readMemory(slot * BLOCK_SIZE + within, target);
    return true;
  }

  async flush(): Promise<void> {}

  stats(): OverlayStats {
    const memoryBytes = this.#slabs.reduce((bytes, slab) => bytes + (slab?.length ?? 0), 0);
    return {
      dirtyBytes: (this.map.dataBlocks + this.map.zeroBlocks) * BLOCK_SIZE,
      zeroBytes: this.map.zeroBlocks * BLOCK_SIZE,
      storedBytes: memoryBytes + this.#spilled.highWater * BLOCK_SIZE,
      memoryBytes,
      acknowledgedBytes: this.#acknowledgedBytes,
      writtenBytes: this.#writtenBytes,
    };
  }

  /** Blocks in use: a trimmed block's place in the file is taken again before the file grows. */
  get usedBytes(): number {
    return (this.#memory.used + this.#spilled.used) * BLOCK_SIZE;
  }

  roomFor(changes: readonly Change[]): number {
    let blocks = 0;
    for (const { block, count, data } of changes) {
      if (data === undefined) continue;
      for (let at = block; at < block + count; ) {
        const run = this.map.runAt(at, block + count);
        if (run.value === undefined || isZeroValue(run.value)) blocks += run.count;
        at += run.count;
      }
    }
    return blocks * BLOCK_SIZE;
  }

  /** What is free is free at once. */
  makeRoom(): void {}

  async close(): Promise<void> {
    this.#slabs.length = 0;
    this.#budget.give(this.#memory.used * BLOCK_SIZE);
    await this.#spill.close();
  }

  /** Where byte `skip` of a run lies, and how many bytes from there on can be in memory. */
  #placeOf(value: number, skip: number): { slot: number; within: number; inMemory: number } {
    const slot = value + Math.floor(skip / BLOCK_SIZE);
    const within = skip % BLOCK_SIZE;
    return { slot, within, inMemory: Math.max(0, (this.#memorySlots - slot) * BLOCK_SIZE - within) };
  }

  /** Copies what has or gets a place in memory, and lists the rest in `spills`. */
  #placeData(block: number, count: number, data: Uint8Array, spills: SpillWrite[]): void {
    for (let done = 0; done < count; ) {
      const run = this.map.runAt(block + done, block + count);
      const bytes = data.subarray(done * BLOCK_SIZE, (done + run.count) * BLOCK_SIZE);
      done += run.count;
      if (run.value !== undefined && !isZeroValue(run.value)) this.#overwrite(run.first, run.value, bytes, spills);
      else this.#placeFresh(run.first, bytes, spills);
    }
  }

  #overwrite(block: number, slot: number, data: Uint8Array, spills: SpillWrite[]): void {
    const inMemory = Math.max(0, this.#memorySlots - slot) * BLOCK_SIZE;
    for (let at = 0; at < Math.min(inMemory, data.length); at += BLOCK_SIZE) {
      this.#copyIn(slot + at / BLOCK_SIZE, data, at);
    }
    // Never where it was: somebody may be reading there, and half of each is neither.
    for (let at = inMemory; at < data.length; at += BLOCK_SIZE) {
      this.#addSpill(block + at / BLOCK_SIZE, data.subarray(at, at + BLOCK_SIZE), spills);
    }
  }

  #placeFresh(block: number, data: Uint8Array, spills: SpillWrite[]): void {
    for (let at = 0; at < data.length; at += BLOCK_SIZE) {
      const index = block + at / BLOCK_SIZE;
      const slot = this.#allocateMemory();
      if (slot === undefined) {
        this.#addSpill(index, data.subarray(at, at + BLOCK_SIZE), spills);
        continue;
      }
      const slab = Math.floor(slot / SLAB_SLOTS);
      this.#slabUse[slab] = (this.#slabUse[slab] ?? 0) + 1;
      this.#copyIn(slot, data, at);
      this.#set(index, 1, slot);
    }
  }

  #allocateMemory(): number | undefined {
    if (!this.#budget.take(BLOCK_SIZE)) return undefined;
    const slot = this.#memory.allocate();
    if (slot === undefined) this.#budget.give(BLOCK_SIZE);
    return slot;
  }

  /** Gives one block a place in the file; neighbours in block and place become one write. */
  #addSpill(block: number, data: Uint8Array, spills: SpillWrite[]): void {
    const number = this.#spilled.allocate();
    if (number === undefined) throw new OverlayError('the overlay has no place left', { reason: 'full' });
    const slot = number + this.#memorySlots;
    const last = spills.at(-1);
    const lastCount = (last?.data.length ?? 0) / BLOCK_SIZE;
    const continues =
      last !== undefined &&
      last.slot + lastCount === slot &&
      last.block + lastCount === block &&
      last.data.buffer === data.buffer &&
      last.data.byteOffset + last.data.length === data.byteOffset;
    if (!continues) {
      spills.push({ block, slot, data });
      return;
    }
    const joined = new Uint8Array(data.buffer, last.data.byteOffset, last.data.length + data.length);
    spills[spills.length - 1] = { ...last, data: joined };
  }

  async #writeSpills(spills: readonly SpillWrite[]): Promise<void> {
    const epoch = this.#epochs.enter();
    try {
      const results = await Promise.allSettled(spills.map((spill) => this.#writeSpill(spill)));
      for (const result of results) {
        if (result.status === 'rejected') throw overlayFailure('cannot write to the spill file', result.reason);
      }
    } finally {
      this.#epochs.leave(epoch);
    }
  }

  async #writeSpill({ block, slot, data }: SpillWrite): Promise<void> {
    const count = data.length / BLOCK_SIZE;
    try {
      await this.#spill.write(slot - this.#memorySlots, data);
    } catch (error) {
      this.#spilled.free(slot - this.#memorySlots, count);
      throw error;
    }
    this.#writtenBytes += data.length;
    this.#set(block, count, slot);
  }

  #set(block: number, count: number, value: number): void {
    this.map.set(block, count, value, (replaced, blocks) => {
      if (!isZeroValue(replaced)) this.#free(replaced, blocks);
    });
  }

  #free(first: number, count: number): void {
    const inMemory = Math.min(count, Math.max(0, this.#memorySlots - first));
    for (let slot = first; slot < first + inMemory; slot++) {
      const slab = Math.floor(slot / SLAB_SLOTS);
      // An empty slab goes back to the system: a trimmed overlay is a small process again.
      if (--this.#slabUse[slab]! === 0) this.#slabs[slab] = undefined;
    }
    if (inMemory > 0) this.#memory.free(first, inMemory);
    this.#budget.give(inMemory * BLOCK_SIZE);
    if (inMemory === count) return;
    const spilled = first + inMemory - this.#memorySlots;
    this.#epochs.retire(() => this.#spilled.free(spilled, count - inMemory));
  }

  #copyIn(slot: number, data: Uint8Array, at: number): void {
    const index = Math.floor(slot / SLAB_SLOTS);
    let slab = this.#slabs[index];
    if (slab === undefined) {
      slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#slabs[index] = slab;
    }
    slab.set(data.subarray(at, at + BLOCK_SIZE), (slot % SLAB_SLOTS) * BLOCK_SIZE);
  }

  #readMemory(position: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const within = (position + done) % SLAB_BYTES;
      const length = Math.min(SLAB_BYTES - within, target.length - done);
      const slab = this.#slabs[Math.floor((position + done) / SLAB_BYTES)]!;
      target.set(slab.subarray(within, within + length), done);
      done += length;
    }
  }
}
