/** When an fdatasync is waited for in the main thread: after little was written, and nothing else changes by it. */
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { nodeFileSystem, type OverlayFile } from '../../../src/device/file-system.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';

const cleanup = cleanupAfterEach();

async function newFile(): Promise<OverlayFile> {
  const file = await nodeFileSystem.open(join(temporaryFolder(cleanup), 'file'), 'create');
  cleanup.add(() => file.close().catch(() => undefined));
  return file;
}

/** Whether it is durable by the end of this turn: what a thread does is told in a later one. */
async function isSyncedInThisTurn(file: OverlayFile): Promise<boolean> {
  let isSynced = false;
  const synced = file.sync().then(() => {
    isSynced = true;
  });
  for (let i = 0; i < 10; i++) await undefined;
  const inThisTurn = isSynced;
  await synced;
  return inThisTurn;
}

// Each with a file of its own: on a disk that takes long the second would not be waited for.
it('a commit is made durable in its turn, whichever way it was written', async () => {
  const [file, other] = [await newFile(), await newFile()];
  await file.write([Buffer.alloc(8192, 1)], 0);
  expect(await isSyncedInThisTurn(file)).toBe(true);
  expect(other.writeNow!([Buffer.alloc(8192, 2)], 0)).toBe(true);
  expect(await isSyncedInThisTurn(other)).toBe(true);
});

it('much data is made durable by a thread, however it was gathered, and what comes after it in its turn again', async () => {
  const file = await newFile();
  await file.write([Buffer.alloc(200_000, 1), Buffer.alloc(100_000, 1)], 0);
  expect(await isSyncedInThisTurn(file)).toBe(false);
  for (let at = 0; at < 300_000; at += 60_000) expect(file.writeNow!([Buffer.alloc(60_000, 2)], at)).toBe(true);
  expect(await isSyncedInThisTurn(file)).toBe(false);
  await file.write([Buffer.alloc(8192, 3)], 0);
  expect(await isSyncedInThisTurn(file)).toBe(true);
});

it('one that fails rejects, in its turn as later', async () => {
  for (const bytes of [8192, 300_000]) {
    const file = await newFile();
    await file.write([Buffer.alloc(bytes)], 0);
    await file.close();
    await setImmediate();
    await expect(file.sync(), `${bytes}`).rejects.toThrow();
  }
});
