/** NAME@TOKEN: a name that reaches one disk or none, whatever happens to the server in between. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ExportLease } from '../../../src/core/export-catalog.ts';
import { silentLog } from '../../../src/core/log.ts';
import { KeptOverlays } from '../../../src/exports/directory-overlays.ts';
import { attachName, splitSuffix } from '../../../src/exports/export-name.ts';
import { MemoryOverlays } from '../../../src/exports/memory-overlays.ts';
import { OpenStore } from '../../../src/exports/open-store.ts';
import type { Overlays } from '../../../src/exports/overlays.ts';
import { ReadOnlyOverlays } from '../../../src/exports/read-only-overlays.ts';
import { SnapshotExports } from '../../../src/exports/snapshot-exports.ts';
import type { LayoutRequest } from '../../../src/ext4/parameters.ts';
import { parseSelector } from '../../../src/kloset/selector.ts';
import { albumSnapshots, albumStore, shortId } from '../../support/fixtures.ts';
import { storeAt } from '../../support/kloset.ts';

const [before] = albumSnapshots;
const opening = OpenStore.open({
  store: storeAt(albumStore),
  cacheBytesMax: 1e6,
  inflightBytesMax: 1e7,
  keys: { passphrase: () => Promise.reject(), deriveKey: () => Promise.reject() },
});
afterAll(async () => (await opening).close());

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attach-names-'));
});
/** What stands for one server process each, to be ended. */
const running: { exports: SnapshotExports; overlays: Overlays }[] = [];
const stopAll = async () => {
  for (const { exports, overlays } of running.splice(0)) {
    await exports.close();
    await overlays.close();
  }
};
afterEach(async () => {
  await stopAll();
  await rm(directory, { recursive: true });
});

const memory = (): Overlays =>
  new MemoryOverlays({ memoryBytesMax: 1e6, tempDir: directory, encryptSpill: false, space: {}, log: silentLog });
const kept = (): Promise<Overlays> => KeptOverlays.open(join(directory, 'overlays'), {}, silentLog);

async function startServer(overlays: Overlays, selectors = ['latest'], layout: LayoutRequest = {}) {
  const exports = await SnapshotExports.create({
    store: await opening,
    layout,
    overlays,
    log: silentLog,
    selectors: selectors.map(parseSelector),
  });
  running.push({ exports, overlays });
  return exports;
}

async function attach(exports: SnapshotExports, name: string): Promise<ExportLease> {
  return (await exports.acquire(name))!;
}

/** The name that the description of an export says to attach by. */
async function nameOf(exports: SnapshotExports, name = ''): Promise<string> {
  const lease = await attach(exports, name);
  lease.release();
  return /, attach as (\S+@[0-9a-f]{32})$/.exec(lease.description)![1]!;
}

describe('the name to attach by', () => {
  it('is a name and 32 hex digits, and nothing else is taken for one', () => {
    const token = '0123456789abcdef'.repeat(2);
    expect(splitSuffix(attachName('tag:a@b', token))).toEqual({ name: 'tag:a@b', isBase: false, token });
    expect(splitSuffix(`@${token}`)).toEqual({ name: '', isBase: false, token });
    expect(splitSuffix('a@base')).toEqual({ name: 'a', isBase: true, token: undefined });
    for (const other of ['latest', `latest@${token}0`, `latest@${token.toUpperCase()}`, token]) {
      expect(splitSuffix(other)).toEqual({ name: other, isBase: false, token: undefined });
    }
  });

  it('is the same disk as the plain name, for the one-writer rule too, and is told by INFO and LIST', async () => {
    const exports = await startServer(memory());
    const name = await nameOf(exports);
    expect((await exports.list())[0]!.description).toMatch(new RegExp(`, attach as ${name}$`));
    const [plain, pinned, empty] = [
      await attach(exports, 'latest'),
      await attach(exports, name),
      await attach(exports, name.replace('latest', '')),
    ];
    expect([pinned.deviceId, empty.deviceId]).toEqual([plain.deviceId, plain.deviceId]);
    expect([pinned.name, pinned.readOnly]).toEqual([name, false]);
    await plain.device.write(4096, Buffer.from('here'), { fua: false });
    const got = Buffer.alloc(4);
    await pinned.device.read(4096, got);
    expect(got.toString()).toBe('here');
    for (const lease of [plain, pinned, empty]) lease.release();
  });

  it('has a token of its own in every process whose writes are lost', async () => {
    const [first, second] = [await startServer(memory()), await startServer(memory())];
    const name = await nameOf(first);
    expect(await nameOf(second)).not.toBe(name);
    await expect(second.acquire(name)).rejects.toThrow(
      `The disk "${name}" is gone: this disk's writes were lost when the server ended. Unmount and detach it; "latest" is another disk.`,
    );
    // The refusal holds nothing.
    await second.close();
  });

  it('stays with a durable overlay, and goes with it', async () => {
    const name = await nameOf(await startServer(await kept()));
    await stopAll();
    const again = await startServer(await kept());
    (await attach(again, name)).release();
    await stopAll();
    for (const key of await readdir(join(directory, 'overlays'))) {
      await rm(join(directory, 'overlays', key), { recursive: true });
    }
    await expect((await startServer(await kept())).acquire(name)).rejects.toThrow(/its overlay was removed/);
  });

  it('changes when the file that holds the token is damaged: no disk is better than a wrong one', async () => {
    const name = await nameOf(await startServer(await kept()));
    await stopAll();
    await writeFile(join(directory, 'overlays', 'latest', 'token.json'), '{"checksum":1,"content":{"token":"x"}}');
    const again = await startServer(await kept());
    await expect(again.acquire(name)).rejects.toThrow(/is gone/);
    (await attach(again, await nameOf(again))).release();
  });

  it('of another snapshot under the same name is refused', async () => {
    const name = await nameOf(await startServer(new ReadOnlyOverlays(), [shortId(before)]), shortId(before));
    const renamed = name.replace(shortId(before), 'latest');
    await expect((await startServer(new ReadOnlyOverlays())).acquire(renamed)).rejects.toThrow(/is gone/);
  });
});

describe('a read-only server', () => {
  it('has disks that nobody can write, by names that mean the same bytes in every process', async () => {
    const first = await startServer(new ReadOnlyOverlays());
    const name = await nameOf(first);
    const lease = await attach(first, name);
    expect(lease.readOnly).toBe(true);
    expect(lease.description).not.toContain('volatile');
    await expect(lease.device.write(0, Buffer.alloc(1), { fua: false })).rejects.toThrow('read-only');
    lease.release();
    (await attach(await startServer(new ReadOnlyOverlays()), name)).release();
    const larger = await startServer(new ReadOnlyOverlays(), ['latest'], { free: { bytes: 2 ** 31 } });
    await expect(larger.acquire(name)).rejects.toThrow(/another snapshot or layout/);
    expect(await readdir(directory)).toEqual([]);
  });

  it('shows the bytes of the pristine disk', async () => {
    const exports = await startServer(new ReadOnlyOverlays());
    const [disk, base] = [await attach(exports, ''), await attach(exports, '@base')];
    const [got, expected] = [Buffer.alloc(65_536), Buffer.alloc(65_536, 1)];
    await disk.device.read(1000, got);
    await base.device.read(1000, expected);
    expect(got.equals(expected)).toBe(true);
    disk.release();
    base.release();
  });
});
