/** Large data beside small records in one file: past the page cache or not, what is read is what was written. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { AlignedArena, AlignedBuffer, isAligned } from '../../../src/core/aligned-buffer.ts';
import { KiB, MiB } from '../../../src/core/units.ts';
import { DirectWriter } from '../../../src/device/direct-writer.ts';
import { nodeFileSystem } from '../../../src/device/file-system.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const cleanup = cleanupAfterEach();

test('what is written from aligned memory and from other memory is read back, in any order', async () => {
  const file = await nodeFileSystem.open(join(temporaryFolder(cleanup), 'log'), 'create');
  const arena = new AlignedArena(8 * MiB);
  const random = seededRandom(11);
  const expected = Buffer.alloc(8 * MiB);
  let end = 0;
  for (let round = 0; round < 40; round++) {
    const blocks = 1 + random.below(100);
    const source = arena.take(blocks * 4 * KiB) ?? Buffer.alloc(blocks * 4 * KiB);
    source.fill(1 + round);
    const position = random.below(1000) * 4 * KiB;
    // As a record and its data: the data first, in two pieces, then some bytes before it.
    const cut = random.below(blocks + 1) * 4 * KiB;
    await file.write([source.subarray(0, cut), source.subarray(cut)], position + 4 * KiB);
    const record = Buffer.alloc(64 + random.below(4 * KiB - 64), 100 + round);
    await file.write([record], position + 4 * KiB - record.length);
    source.copy(expected, position + 4 * KiB);
    record.copy(expected, position + 4 * KiB - record.length);
    end = Math.max(end, position + 4 * KiB + source.length);
  }
  await file.sync();
  const got = Buffer.alloc(8 * MiB);
  expect(await file.read(got, 0)).toBe(end);
  expect(got.equals(expected)).toBe(true);
  await file.close();
});

test('few bytes, and a file that is gone, are left to others', async () => {
  const path = join(temporaryFolder(cleanup), 'log');
  writeFileSync(path, '');
  const bytes = new AlignedBuffer().take(MiB);
  const writer = new DirectWriter(path);
  expect(await writer.write([bytes.subarray(0, 64 * KiB)], 0)).toBe(false);
  await writer.close();
  const gone = new DirectWriter(`${path}-gone`);
  expect(await gone.write([bytes], 0)).toBe(false);
  await gone.close();
});

test('memory is aligned where it is known to be', () => {
  const buffer = new AlignedBuffer();
  const bytes = buffer.take(10_000);
  expect([bytes.byteLength, isAligned(bytes)]).toEqual([12 * KiB, true]);
  expect([isAligned(bytes.subarray(1)), isAligned(bytes.subarray(0, 100)), isAligned(new Uint8Array(4096))]).toEqual([
    false,
    false,
    false,
  ]);
  const arena = new AlignedArena(8 * KiB);
  expect([arena.take(5000)?.byteLength, arena.take(1)]).toEqual([8 * KiB, undefined]);
});
