/** What every BlockDevice promises, whatever is behind it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BlockDevice } from '../../src/core/device.ts';
import { BLOCK_SIZE } from '../../src/core/units.ts';
import { seededRandom } from '../support/overlay-random.ts';

export interface DeviceSuite {
  readonly name: string;
  /** A fresh device with this content. Called once a test; the suite closes the device. */
  open(content: Uint8Array): Promise<BlockDevice>;
  /** What the device must say it supports. */
  readonly supports: BlockDevice['supports'];
}

const BLOCKS = 64;
const SIZE = BLOCKS * BLOCK_SIZE;

export function runDeviceSuite({ name, open, supports }: DeviceSuite): void {
  describe(`${name} as a BlockDevice`, () => {
    const content = seededRandom(7).fill(Buffer.alloc(SIZE));
    content.fill(0, 8 * BLOCK_SIZE, 12 * BLOCK_SIZE);
    let device: BlockDevice;
    let expected: Buffer;

    beforeEach(async () => {
      device = await open(Buffer.from(content));
      expected = Buffer.from(content);
    });
    afterEach(() => device.close());

    const bytes = (length: number, seed = 1) => seededRandom(seed).fill(Buffer.alloc(length));
    const readAll = async () => {
      const target = Buffer.alloc(SIZE, 0xee);
      await device.read(0, target);
      return target;
    };
    const write = async (offset: number, data: Buffer, fua = false) => {
      await device.write(offset, data, { fua });
      data.copy(expected, offset);
    };

    it('says its size and what it supports', () => {
      expect(device.sizeBytes).toBe(SIZE);
      expect(device.supports).toEqual(supports);
    });

    it('reads exact bytes at any offset and length', async () => {
      for (const [offset, length] of [
        [0, 0],
        [SIZE, 0],
        [0, 1],
        [SIZE - 1, 1],
        [4095, 2],
        [1, SIZE - 1],
        [5000, 12_345],
        [4096, 8192],
      ] as const) {
        const target = Buffer.alloc(length + 2, 0x5a);
        await device.read(offset, target.subarray(1, length + 1));
        expect(target.subarray(1, length + 1).equals(content.subarray(offset, offset + length))).toBe(true);
        expect([target[0], target[length + 1]]).toEqual([0x5a, 0x5a]);
      }
    });

    it('writes exact bytes: below a block, across blocks, whole blocks, at both ends', async () => {
      for (const [offset, length] of [
        [0, 1],
        [SIZE - 1, 1],
        [1024, 1024],
        [4095, 2],
        [3 * BLOCK_SIZE, 2 * BLOCK_SIZE],
        [5 * BLOCK_SIZE + 100, 3 * BLOCK_SIZE],
        [20 * BLOCK_SIZE, 0],
        [21 * BLOCK_SIZE - 1, BLOCK_SIZE + 1],
        [SIZE - 10_000, 10_000],
      ] as const) {
        await write(offset, bytes(length, offset + 1), supports.fua && length % 2 === 0);
        expect((await readAll()).equals(expected)).toBe(true);
      }
    });

    it('writes the same at once, or says that it has not', async () => {
      for (const [offset, length] of [
        [0, BLOCK_SIZE],
        [3 * BLOCK_SIZE, 5 * BLOCK_SIZE],
        [3 * BLOCK_SIZE + 1, BLOCK_SIZE],
        [40 * BLOCK_SIZE, 20],
        [20 * BLOCK_SIZE, 0],
      ] as const) {
        for (const data of [bytes(length, offset + 2), Buffer.alloc(length), bytes(length, offset + 2)]) {
          if (device.writeNow?.(offset, data) === true) data.copy(expected, offset);
          expect((await readAll()).equals(expected)).toBe(true);
          await write(offset, data);
          await device.flush();
          expect((await readAll()).equals(expected)).toBe(true);
        }
      }
    });

    it('takes zeroes as data: blocks of them read as zeroes, over base and over earlier writes', async () => {
      await write(2 * BLOCK_SIZE, Buffer.alloc(3 * BLOCK_SIZE));
      await write(3 * BLOCK_SIZE, bytes(BLOCK_SIZE));
      await write(3 * BLOCK_SIZE + 7, Buffer.alloc(BLOCK_SIZE));
      await write(0, bytes(BLOCK_SIZE));
      await write(0, Buffer.alloc(BLOCK_SIZE));
      expect((await readAll()).equals(expected)).toBe(true);
    });

    it('keeps no reference to what was written', async () => {
      const source = bytes(3 * BLOCK_SIZE);
      await write(BLOCK_SIZE + 1, source);
      source.fill(0xff);
      expect((await readAll()).equals(expected)).toBe(true);
    });

    it('writeZeroes clears exactly its bytes', async () => {
      await write(0, bytes(10 * BLOCK_SIZE, 3));
      for (const [offset, length] of [
        [10, 5],
        [4000, 200],
        [3 * BLOCK_SIZE, BLOCK_SIZE],
        [5 * BLOCK_SIZE + 1, 2 * BLOCK_SIZE],
        [30 * BLOCK_SIZE, 20 * BLOCK_SIZE],
        [SIZE - 1, 1],
        [9, 0],
      ] as const) {
        for (const mayTrim of [true, false])
          await device.writeZeroes({ offset, length }, { fua: supports.fua, mayTrim });
        expected.fill(0, offset, offset + length);
        expect((await readAll()).equals(expected)).toBe(true);
      }
    });

    it.skipIf(!supports.trim)('trim clears the whole blocks inside its range and nothing else', async () => {
      await write(0, bytes(10 * BLOCK_SIZE, 3));
      for (const [offset, length, from, to] of [
        [1, 2 * BLOCK_SIZE, 1, 2],
        [3 * BLOCK_SIZE, 2 * BLOCK_SIZE, 3, 5],
        [6 * BLOCK_SIZE + 1, BLOCK_SIZE + 100, 0, 0],
        [7 * BLOCK_SIZE, 100, 0, 0],
        [30 * BLOCK_SIZE - 1, 20 * BLOCK_SIZE, 30, 49],
      ] as const) {
        await device.trim({ offset, length }, { fua: false });
        expected.fill(0, from * BLOCK_SIZE, to * BLOCK_SIZE);
        expect((await readAll()).equals(expected)).toBe(true);
      }
      await write(4 * BLOCK_SIZE + 5, bytes(10));
      expect((await readAll()).equals(expected)).toBe(true);
    });

    it('lands all of many writes into one block issued together', async () => {
      const block = 17 * BLOCK_SIZE;
      const data = bytes(BLOCK_SIZE, 9);
      const writes: Promise<void>[] = [];
      for (let at = 0; at < BLOCK_SIZE; at += 64) {
        writes.push(device.write(block + at, data.subarray(at, at + 64), { fua: false }));
      }
      writes.push(device.writeZeroes({ offset: block + BLOCK_SIZE, length: 10 }, { fua: false, mayTrim: false }));
      await Promise.all(writes);
      data.copy(expected, block);
      expected.fill(0, block + BLOCK_SIZE, block + BLOCK_SIZE + 10);
      expect((await readAll()).equals(expected)).toBe(true);
    });

    it('leaves one whole write, never a mixture, where whole-block writes and a part of it race', async () => {
      for (let round = 0; round < 20; round++) {
        const block = round * BLOCK_SIZE;
        const whole = Buffer.alloc(BLOCK_SIZE, 0xaa);
        const part = Buffer.alloc(100, 0xbb);
        await Promise.all([
          device.write(block + 50, part, { fua: false }),
          device.write(block, whole, { fua: false }),
          device.read(block, Buffer.alloc(BLOCK_SIZE)),
        ]);
        const got = Buffer.alloc(BLOCK_SIZE);
        await device.read(block, got);
        const allowed = [whole, Buffer.concat([whole.subarray(0, 50), part, whole.subarray(150)])];
        expect(allowed.some((one) => one.equals(got))).toBe(true);
      }
    });

    it('flushes, with and without something to flush, many at once', async () => {
      await device.flush();
      await write(0, bytes(100));
      await Promise.all([device.flush(), device.flush(), device.flush()]);
      expect((await readAll()).equals(expected)).toBe(true);
    });

    it('closes twice', async () => {
      await device.close();
      await device.close();
    });
  });
}
