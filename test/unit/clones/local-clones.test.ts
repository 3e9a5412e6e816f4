/** Clones of a real snapshot: each its own disk, whatever is done to the others. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CloneExports } from '../../../src/clones/clone-exports.ts';
import { CLONE_FORMAT_VERSION, type CloneRecord, newOverlayId } from '../../../src/clones/clone-record.ts';
import { LocalClones, type LocalClonesOptions } from '../../../src/clones/local-clones.ts';
import { UserError } from '../../../src/core/errors.ts';
import type { ExportLease } from '../../../src/core/export-catalog.ts';
import { silentLog } from '../../../src/core/log.ts';
import { toHex } from '../../../src/core/mac.ts';
import { BLOCK_SIZE } from '../../../src/core/units.ts';
import { OpenStore } from '../../../src/exports/open-store.ts';
import { albumSnapshots, albumStore, cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { storeAt } from '../../support/kloset.ts';
import { requires } from '../../support/requires.ts';

const [, after] = albumSnapshots;
const cleanup = cleanupAfterEach();
const need = requires('flock');
const opening = OpenStore.open({
  store: storeAt(albumStore),
  cacheBytesMax: 1e7,
  inflightBytesMax: 1e7,
  keys: { passphrase: () => Promise.reject(), deriveKey: () => Promise.reject() },
});
afterAll(async () => (await opening).close());

const NOW = 1_700_000_000_000;

async function openClones(options: Partial<LocalClonesOptions> = {}): Promise<LocalClones> {
  const directory = options.directory ?? join(temporaryFolder(cleanup), 'clones');
  const parts = { directory, settings: {}, store: () => opening, log: silentLog, now: () => NOW };
  const clones = await LocalClones.open({ ...parts, ...options });
  cleanup.add(() => clones.close());
  return clones;
}

async function create(clones: LocalClones, name: string, more: Partial<CloneRecord> = {}): Promise<void> {
  await clones.registry.create({
    formatVersion: CLONE_FORMAT_VERSION,
    name,
    overlayId: newOverlayId(),
    storeId: toHex((await opening).repository.config.repositoryId),
    isEncrypted: false,
    selector: 'latest',
    parts: [{ snapshot: after.id, path: '/', at: null }],
    layout: { free: { bytes: 16 * 1024 * 1024 } },
    createdMs: NOW,
    resetMs: null,
    expiresMs: null,
    isProtected: false,
    ...more,
  });
}

const nothingElse = { list: async () => [], acquire: async () => undefined };
async function attach(clones: LocalClones, name: string): Promise<ExportLease> {
  const lease = await new CloneExports(clones, nothingElse).acquire(name);
  if (lease === undefined) throw new Error(`there is no export ${name}`);
  return lease;
}

/** A block's worth of `text`, written at block `block`. */
async function write(lease: ExportLease, block: number, text: string): Promise<void> {
  await lease.device.write(block * BLOCK_SIZE, Buffer.alloc(BLOCK_SIZE, text), { fua: false });
}

async function read(lease: Pick<ExportLease, 'device'>, block: number): Promise<string> {
  const target = Buffer.alloc(BLOCK_SIZE);
  await lease.device.read(block * BLOCK_SIZE, target);
  return target.toString('latin1', 0, 12);
}

describe.skipIf(need.missing)(need.title('clones'), () => {
  it('are fifty disks at once, each with its own writes', async () => {
    const clones = await openClones();
    const names = Array.from({ length: 50 }, (_, i) => `clone-${i}`);
    await Promise.all(names.map((name) => create(clones, name)));
    const leases = await Promise.all(names.map((name) => attach(clones, name)));
    const base = await attach(clones, 'clone-0@base');
    const held = await Promise.all(names.map(async (name) => clones.devices.hold(await clones.registry.require(name))));
    const images = await Promise.all(held.map(async ({ device }) => (await device).image));
    expect(new Set(images).size, 'the snapshot is laid out once for all').toBe(1);
    for (const { release } of held) release();
    const original = await read(base, 1);
    await Promise.all(leases.map((lease, i) => write(lease, 1, `one of ${i} `)));
    await Promise.all(leases.map((lease, i) => write(lease, 2 + i, `own of ${i} `)));
    for (const [i, lease] of leases.entries()) {
      expect(await read(lease, 1)).toBe(`one of ${i} one of ${i} `.slice(0, 12));
      const ranges = (await clones.diff(names[i]!)).diff;
      expect(ranges.dirtyBytes).toBe(2 * BLOCK_SIZE);
      const neighbour = 2 + ((i + 1) % 50);
      expect(await read(lease, neighbour)).toBe(await read(base, neighbour));
    }
    expect(await read(base, 1)).toBe(original);
    expect(new Set(leases.map(({ deviceId }) => deviceId)).size).toBe(50);
    const { clones: listed } = await clones.list();
    expect(listed.map(({ connections }) => connections)).toEqual([2, ...Array(49).fill(1)]);
    for (const lease of [...leases, base]) lease.release();
  });

  it('of one snapshot have one image as long as any of them is open', async () => {
    const clones = await openClones();
    for (const name of ['one', 'two']) await create(clones, name);
    await create(clones, 'other', { layout: { free: { bytes: 32 * 1024 * 1024 } } });
    const imageOf = async (name: string) => {
      const hold = clones.devices.hold(await clones.registry.require(name));
      return { image: (await hold.device).image, hold };
    };
    const [one, two, other] = [await imageOf('one'), await imageOf('two'), await imageOf('other')];
    expect(two.image).toBe(one.image);
    expect(other.image).not.toBe(one.image);
    one.hold.release();
    await clones.devices.closeIdle(await clones.registry.require('one'));
    await two.image.read(0, Buffer.alloc(BLOCK_SIZE));
    two.hold.release();
    await clones.devices.closeIdle(await clones.registry.require('two'));
    await expect(two.image.read(0, Buffer.alloc(BLOCK_SIZE))).rejects.toThrow(/open/);
    const again = await imageOf('one');
    expect(again.image).not.toBe(one.image);
    again.hold.release();
    other.hold.release();
  });

  it('are reached by a name that says which disk it must be, until they are reset; a copy is another disk', async () => {
    const clones = await openClones();
    await create(clones, 'one');
    const lease = await attach(clones, 'one');
    const [, exact] = /attach as (one@[0-9a-f]{32})$/.exec(lease.description) ?? [];
    lease.release();
    const again = await attach(clones, exact!);
    expect([again.name, again.deviceId]).toEqual([exact, lease.deviceId]);
    again.release();
    await clones.copy('one', 'two');
    await clones.reset('one', { force: false });
    await expect(attach(clones, exact!)).rejects.toThrow(/is gone/);
    await expect(attach(clones, exact!.replace('one', 'two'))).rejects.toThrow(/is gone/);
    expect((await clones.list()).clones.map(({ connections }) => connections)).toEqual([0, 0]);
  });

  it('are seen by clients as soon as they are made, and by names that are clones only', async () => {
    const clones = await openClones();
    const exports = new CloneExports(clones, nothingElse);
    expect(await exports.acquire('one')).toBeUndefined();
    await create(clones, 'one');
    expect((await exports.list()).map(({ name }) => name)).toEqual(['one', 'one@base']);
    const [lease, base] = [await attach(clones, 'one'), await attach(clones, 'one@base')];
    expect([lease.readOnly, base.readOnly]).toEqual([false, true]);
    for (const name of ['two', 'one@other', '', '../one']) expect(await exports.acquire(name), name).toBeUndefined();
    lease.release();
    base.release();
  });

  it('keep what was written when the directory is taken again, which two cannot have at once', async () => {
    const directory = join(temporaryFolder(cleanup), 'clones');
    const clones = await openClones({ directory });
    await create(clones, 'one');
    const lease = await attach(clones, 'one');
    await write(lease, 7, 'kept');
    await expect(openClones({ directory })).rejects.toThrow(/in use by process/);
    lease.release();
    await clones.close();
    const again = await openClones({ directory });
    const second = await attach(again, 'one');
    expect(await read(second, 7)).toMatch(/^kept/);
    second.release();
  });

  it('are copied while clients write to them: what is there at one moment, and from then on two disks', async () => {
    const clones = await openClones();
    await create(clones, 'one', { isProtected: true, expiresMs: NOW + 1000 });
    const lease = await attach(clones, 'one');
    await write(lease, 7, 'before');
    expect(await clones.copy('one', 'two')).toEqual({ connections: 1 });
    await write(lease, 7, 'behind');
    const copy = await attach(clones, 'two');
    expect(await read(copy, 7)).toMatch(/^before/);
    await write(copy, 8, 'of the copy');
    expect(await read(lease, 8)).not.toMatch(/^of the copy/);
    lease.release();
    copy.release();
    expect(await clones.registry.require('two')).toMatchObject({ isProtected: false, expiresMs: null });
    expect(await clones.copy('two', 'three')).toEqual({ connections: 0 });
    const third = await attach(clones, 'three');
    expect([await read(third, 7), await read(third, 8)].map((text) => text.slice(0, 6))).toEqual(['before', 'of the']);
    third.release();
    await expect(clones.copy('two', 'three')).rejects.toThrow(/already/);
    await expect(clones.copy('none', 'four')).rejects.toThrow(/no clone "none"/);
    await expect(clones.copy('two', 'latest')).rejects.toThrow(/newest snapshot/);
  });

  it('are reset and removed only while nobody has them, or by force, which disconnects first', async () => {
    const leases: ExportLease[] = [];
    const disconnected: string[] = [];
    const disconnect = (deviceId: string) => {
      disconnected.push(deviceId);
      for (const lease of leases.splice(0)) lease.release();
    };
    const directory = join(temporaryFolder(cleanup), 'clones');
    const clones = await openClones({ directory, disconnect });
    await create(clones, 'one');
    const lease = await attach(clones, 'one');
    await write(lease, 7, 'given up');
    leases.push(lease);
    for (const change of ['reset', 'remove'] as const) {
      await expect(clones[change]('one', { force: false })).rejects.toThrow(/has clients/);
    }
    expect(disconnected).toEqual([]);
    await clones.reset('one', { force: true });
    expect(disconnected).toEqual([lease.deviceId]);
    const again = await attach(clones, 'one');
    expect(again.deviceId).not.toBe(lease.deviceId);
    expect(await read(again, 7)).not.toMatch(/^given up/);
    leases.push(again);
    await clones.remove('one', { force: true });
    expect(await new CloneExports(clones, nothingElse).acquire('one')).toBeUndefined();
    expect(readdirSync(directory)).toEqual(['lock']);
  });

  it('stay while something reads them, even by force', async () => {
    const clones = await openClones({ disconnect: () => {} });
    await create(clones, 'one');
    const view = await clones.view('one');
    await expect(clones.remove('one', { force: true })).rejects.toThrow(/being read/);
    await view.close();
    await clones.remove('one', { force: false });
  });

  it('that are protected are neither reset nor removed, nor do they expire', async () => {
    const clones = await openClones({ now: () => NOW + 2000 });
    await create(clones, 'one', { isProtected: true, expiresMs: NOW + 1000 });
    for (const change of ['reset', 'remove'] as const) {
      const refused = clones[change]('one', { force: true });
      await expect(refused).rejects.toThrow(/clone unprotect one/);
      await expect(refused).rejects.toMatchObject({ exitCode: 64 });
    }
    await clones.expire();
    expect(await clones.registry.read('one')).toBeDefined();
    await clones.change('one', { isProtected: false });
    await clones.expire();
    expect(await clones.registry.read('one')).toBeUndefined();
  });

  it('expire when their time is over and nobody has them any more', async () => {
    let nowMs = NOW;
    const directory = join(temporaryFolder(cleanup), 'clones');
    const clones = await openClones({ directory, now: () => nowMs });
    await create(clones, 'short', { expiresMs: NOW + 1000 });
    await create(clones, 'long', { expiresMs: NOW + 9000 });
    const lease = await attach(clones, 'short');
    await write(lease, 3, 'x');
    nowMs = NOW + 1000;
    await clones.expire();
    expect((await clones.list()).clones.map(({ record }) => record.name)).toEqual(['long', 'short']);
    lease.release();
    expect(await new CloneExports(clones, nothingElse).acquire('short')).toBeUndefined();
    expect((await clones.list()).clones.map(({ record }) => record.name)).toEqual(['long']);
    await clones.change('long', { expiresMs: null });
    nowMs = NOW + 99_000;
    expect((await clones.list()).clones).toHaveLength(1);
    expect(readdirSync(directory).filter((name) => name.startsWith('short'))).toEqual([]);
  });

  it('that are begun anew by a crash are swept before they are served', async () => {
    const directory = join(temporaryFolder(cleanup), 'clones');
    const clones = await openClones({ directory });
    await create(clones, 'one');
    const lease = await attach(clones, 'one');
    await write(lease, 7, 'kept');
    lease.release();
    await clones.close();
    const leftover = join(directory, 'gone.clone-0123456789abcdef');
    const { mkdir, writeFile } = await import('node:fs/promises');
    await mkdir(leftover);
    await writeFile(join(leftover, 'log-0000000000000001'), 'half');
    const again = await openClones({ directory });
    expect(existsSync(leftover)).toBe(false);
    const second = await attach(again, 'one');
    expect(await read(second, 7)).toMatch(/^kept/);
    second.release();
  });

  it('say which files were written to, and where', async () => {
    const clones = await openClones();
    await create(clones, 'one');
    const device = await clones.devices.hold(await clones.registry.require('one')).device;
    const { image } = device;
    const { tree } = image.layout;
    const entry = Array.from({ length: tree.length }, (_, i) => i).find(
      (i) => tree.type[i] === 1 && tree.sizeBytes[i]! > 5 * BLOCK_SIZE,
    )!;
    const blocks = Array.from({ length: image.sizeBytes / BLOCK_SIZE }, (_, block) => block);
    const third = blocks.find((block) => {
      const found = image.describe(block);
      return found.kind === 'file' && found.entry === entry && found.offsetBytes === 3 * BLOCK_SIZE;
    })!;
    const free = blocks.find((block) => image.describe(block).kind === 'free')!;
    const journal = blocks.find((block) => image.describe(block).kind === 'journal')!;
    const lease = await attach(clones, 'one');
    await write(lease, third, 'changed');
    await lease.device.trim({ offset: (third + 1) * BLOCK_SIZE, length: BLOCK_SIZE }, { fua: false });
    await write(lease, free, 'a new file');
    await write(lease, journal, 'a transaction');
    const { diff, connections } = await clones.diff('one');
    expect(connections).toBe(1);
    expect(diff.paths).toEqual([
      {
        path: image.layout.pathOf(entry),
        type: 'file',
        dirtyBytes: 2 * BLOCK_SIZE,
        ranges: [
          { offset: 3 * BLOCK_SIZE, length: BLOCK_SIZE, zero: false },
          { offset: 4 * BLOCK_SIZE, length: BLOCK_SIZE, zero: true },
        ],
        moreRanges: 0,
        metadataBytes: 0,
      },
    ]);
    expect(diff).toMatchObject({ dirtyBytes: 4 * BLOCK_SIZE, zeroBytes: BLOCK_SIZE, newBytes: BLOCK_SIZE });
    expect(diff.metadataBytes).toEqual({ journal: BLOCK_SIZE });
    expect(await clones.info('one')).toMatchObject({
      dirtyBytes: 4 * BLOCK_SIZE,
      connections: 1,
      readOnlyReason: null,
    });
    lease.release();
  });

  it('are checked: sound, or which block is damaged', async () => {
    const directory = join(temporaryFolder(cleanup), 'clones');
    const clones = await openClones({ directory });
    await create(clones, 'one');
    expect(await clones.check('one')).toMatchObject({ isSound: true, checkedBlocks: 0 });
    const lease = await attach(clones, 'one');
    await write(lease, 7, 'to be damaged');
    await lease.device.flush();
    await expect(clones.check('one')).rejects.toThrow(/has clients and is not checked/);
    lease.release();
    expect(await clones.check('one')).toMatchObject({ isSound: true, checkedBlocks: 1, damagedBlocks: [] });
    const overlay = join(directory, readdirSync(directory).find((name) => name.startsWith('one.clone-'))!);
    const path = join(overlay, readdirSync(overlay).find((name) => name.startsWith('log-'))!);
    const { readFile, writeFile } = await import('node:fs/promises');
    const bytes = await readFile(path);
    bytes[bytes.indexOf('to be damaged')]! ^= 1;
    await writeFile(path, bytes);
    const found = await clones.check('one');
    expect(found).toMatchObject({ isSound: false, damagedBlockCount: 1 });
    expect(found.damagedBlocks[0]).toMatchObject({ block: 7 });
  });

  it('of another store, or of a snapshot that is gone, are refused with a reason', async () => {
    const clones = await openClones();
    await create(clones, 'other', { storeId: '00'.repeat(16) });
    await create(clones, 'lost', { parts: [{ snapshot: '00'.repeat(32), path: '/', at: null }] });
    await expect(attach(clones, 'other')).rejects.toThrow(/another store/);
    await expect(attach(clones, 'lost')).rejects.toThrow(/no longer holds/);
    await expect(attach(clones, 'lost')).rejects.toBeInstanceOf(UserError);
    expect((await clones.list()).clones.map(({ connections }) => connections)).toEqual([0, 0]);
    await clones.remove('lost', { force: false });
  });
});
