import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { GiB, MiB } from '../../../src/core/units.ts';
import { checkSpace } from '../../../src/postgres/free-space.ts';

const { bavail, bsize } = statfsSync(tmpdir());
const tooMuch = 2 * bavail * bsize + GiB;
const at = { directory: tmpdir(), memoryBytes: 0, advice: 'do this' };

test('what finds no room is refused with what to do, and only told with --force', async () => {
  await expect(checkSpace(at, { walBytes: tooMuch, force: false })).rejects.toThrow(
    /^.* has .* free; recovery .* Make room, do this, or go on with --force\.$/,
  );
  expect(await checkSpace(at, { walBytes: tooMuch, force: true })).toMatch('going on because of --force');
});

test('what memory takes needs no room', async () => {
  expect(
    await checkSpace({ ...at, memoryBytes: tooMuch + 64 * MiB }, { walBytes: tooMuch, force: false }),
  ).toBeUndefined();
});
