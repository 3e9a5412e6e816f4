/** Devices that come and go beneath their clients: over a real store, with overlays that tell what happens to them. */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import type { ReadableDevice } from '../../../src/core/device.ts';
import { OverlayError, UserError } from '../../../src/core/errors.ts';
import type { ExportLease } from '../../../src/core/export-catalog.ts';
import { silentLog } from '../../../src/core/log.ts';
import { OpenStore } from '../../../src/exports/open-store.ts';
import type { Overlay, OverlayIdentity, Overlays, PinnedIdentity } from '../../../src/exports/overlays.ts';
import { SnapshotExports } from '../../../src/exports/snapshot-exports.ts';
import { parseSelector } from '../../../src/kloset/selector.ts';
import { albumSnapshots, albumStore } from '../../support/fixtures.ts';
import { storeAt } from '../../support/kloset.ts';

const [before, after] = albumSnapshots;
const opening = OpenStore.open({
  store: storeAt(albumStore),
  cacheBytesMax: 1e6,
  inflightBytesMax: 1e7,
  keys: { passphrase: () => Promise.reject(), deriveKey: () => Promise.reject() },
});
afterAll(async () => (await opening).close());

/** Overlays without content that notice when one is opened twice at a time. */
class WatchedOverlays implements Overlays {
  isVolatile = false;
  readonly pins = new Map<string, PinnedIdentity>();
  readonly inUse = new Set<string>();
  readonly opened: string[] = [];
  dirtyBytes = 0;
  flushed = 0;
  readOnlyReason: string | undefined;
  /** Awaited by every opening, and by every closing. */
  beforeOpen: () => Promise<void> = async () => {};
  beforeClose: () => Promise<void> = async () => {};
  flush: () => Promise<void> = async () => void this.flushed++;

  async pinned(key: string) {
    return this.pins.get(key);
  }
  async keyOf(snapshotId: string, path: string) {
    return [...this.pins].find(([, pin]) => pin.snapshotId === snapshotId && pin.path === path)?.[0];
  }
  async tokenOf() {
    return '0'.repeat(32);
  }
  async open(key: string, base: ReadableDevice, { snapshotId, path }: OverlayIdentity): Promise<Overlay> {
    const place = `${snapshotId}:${path}`;
    if (this.inUse.has(place)) throw new Error(`${place} is open twice`);
    this.inUse.add(place);
    this.opened.push(key);
    try {
      await this.beforeOpen();
    } catch (error) {
      this.inUse.delete(place);
      throw error;
    }
    const nothing = async () => {};
    return {
      sizeBytes: base.sizeBytes,
      readOnlyReason: this.readOnlyReason,
      supports: { fua: true, trim: true, multiConn: true },
      read: (offset, target) => base.read(offset, target),
      write: nothing,
      writeZeroes: nothing,
      trim: nothing,
      flush: () => this.flush(),
      stats: () => ({ dirtyBytes: this.dirtyBytes }),
      changedRanges: () => [],
      close: async () => {
        await this.beforeClose();
        this.inUse.delete(place);
      },
    };
  }
  async close() {}
}

let overlays: WatchedOverlays;
beforeEach(() => {
  overlays = new WatchedOverlays();
});
async function exportsOf(...selectors: string[]): Promise<SnapshotExports> {
  const parts = { store: await opening, layout: {}, overlays, log: silentLog };
  return SnapshotExports.create({ ...parts, selectors: selectors.map(parseSelector) });
}
const acquire = async (exports: SnapshotExports, name: string): Promise<ExportLease> => (await exports.acquire(name))!;
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const DIRECTORIES = [
  '',
  'base',
  'global',
  'base/1',
  'pg_wal',
  'pg_xact',
  'pg_multixact',
  'pg_logical',
  'pg_notify',
  'pg_serial',
  'pg_stat',
];

/** One device each of so many directories. */
async function manyExports(): Promise<{ exports: SnapshotExports; names: string[] }> {
  const { snapshots, openSource } = await opening;
  const source = await openSource.call(await opening, snapshots[0]!, '/');
  const root = Buffer.from(snapshots[0]!.importer.directory).toString();
  await source.close();
  const names = DIRECTORIES.map((directory) => `latest:${root}/${directory}`);
  return { exports: await exportsOf(...names), names };
}

describe('names', () => {
  it('of one snapshot are one device', async () => {
    const exports = await exportsOf();
    const leases = await Promise.all(
      ['', 'latest', 'tag:after', after.id, after.id.slice(0, 8), after.id.toUpperCase()].map((name) =>
        acquire(exports, name),
      ),
    );
    expect(new Set(leases.map(({ device }) => device)).size).toBe(1);
    expect(new Set(leases.map(({ deviceId }) => deviceId)).size).toBe(1);
    expect(overlays.opened).toHaveLength(1);
    await exports.close();
  });

  it('are read-only for a device whose overlay was found damaged', async () => {
    overlays.readOnlyReason = 'a record is missing';
    const exports = await exportsOf();
    expect((await acquire(exports, 'latest')).readOnly).toBe(true);
    await exports.close();
  });

  it('with @base are its pristine side: read-only, and another device to the one-writer rule', async () => {
    const exports = await exportsOf();
    const [writable, pristine] = [await acquire(exports, 'latest'), await acquire(exports, 'latest@base')];
    expect([writable.readOnly, pristine.readOnly]).toEqual([false, true]);
    expect(pristine.name).toBe('latest@base');
    expect(pristine.deviceId).not.toBe(writable.deviceId);
    await expect(pristine.device.write(0, new Uint8Array(4096), { fua: false })).rejects.toThrow();
    expect(overlays.opened).toHaveLength(1);
    await exports.close();
  });

  it('that may be asked for are those of the command line, if it has any', async () => {
    const exports = await exportsOf('tag:before');
    for (const name of ['', 'tag:before', before.id, before.id.slice(0, 8)]) {
      expect((await exports.acquire(name))?.name, name).toBe('tag:before');
    }
    for (const name of ['latest', after.id, before.id.slice(0, 7), 'tag:none', 'nonsense', '@base@base']) {
      expect(await exports.acquire(name), name).toBeUndefined();
    }
    await exports.close();
  });

  it('that mean nothing, or no device, are none', async () => {
    const exports = await exportsOf();
    for (const name of ['tag:none', 'x', `${after.id}0`, 'latest:/', 'tag:', after.id.slice(0, 4)]) {
      expect(await exports.acquire(name), name).toBeUndefined();
    }
    expect(overlays.opened).toEqual([]);
  });

  it('are refused at the start if they match nothing', async () => {
    await expect(exportsOf('latest', 'tag:none')).rejects.toBeInstanceOf(UserError);
  });

  it('stay with the snapshot that their overlay was made for, and tell the client if it is gone', async () => {
    overlays.pins.set('latest', { snapshotId: before.id, path: '/', layoutVersion: 1 });
    const exports = await exportsOf();
    expect((await acquire(exports, 'latest')).deviceId).toBe((await acquire(exports, before.id)).deviceId);
    await exports.close();
    overlays.pins.set('latest', { snapshotId: 'ff'.repeat(32), path: '/', layoutVersion: 1 });
    await expect((await exportsOf()).acquire('latest')).rejects.toThrow(/no longer holds/);
  });

  it('lead to the overlay under which the device was opened first', async () => {
    const exports = await exportsOf();
    const leases = await Promise.all([acquire(exports, 'latest'), acquire(exports, 'tag:after')]);
    for (const { release } of leases) release();
    await exports.close();
    (await acquire(exports, 'tag:after')).release();
    (await acquire(exports, 'latest')).release();
    expect(new Set(overlays.opened).size).toBe(1);
    await exports.close();
  });
});

describe('a device that cannot be opened', () => {
  it("fails for all who wait, is tried again, and that attempt is everybody's", async () => {
    const exports = await exportsOf();
    overlays.beforeOpen = async () => {
      throw new OverlayError('disk full', { reason: 'full' });
    };
    const results = await Promise.allSettled([1, 2, 3].map(() => exports.acquire('latest')));
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    overlays.beforeOpen = async () => {};
    // One asks again as soon as it hears of the failure, while others have yet to.
    overlays.opened.length = 0;
    const again = await Promise.all([1, 2, 3].map(() => acquire(exports, 'latest')));
    expect(new Set(again.map(({ device }) => device)).size).toBe(1);
    expect(overlays.opened).toHaveLength(1);
    await exports.close();
  });

  it("is opened once however the askers' failures and new attempts interleave", async () => {
    const exports = await exportsOf();
    let failures = 3;
    overlays.beforeOpen = async () => {
      await turn();
      if (failures-- > 0) throw new OverlayError('not yet', { reason: 'io' });
    };
    const persistent = async (): Promise<ExportLease> => {
      for (;;) {
        const lease = await exports.acquire('latest').catch(() => undefined);
        if (lease !== undefined) return lease;
      }
    };
    const leases = await Promise.all(Array.from({ length: 8 }, persistent));
    expect(new Set(leases.map(({ device }) => device)).size).toBe(1);
    expect(overlays.opened).toHaveLength(4);
    await exports.close();
    expect(overlays.inUse.size).toBe(0);
  });

  it('does not spoil a report or the end', async () => {
    const exports = await exportsOf();
    let fail: (error: Error) => void = () => {};
    overlays.beforeOpen = () =>
      new Promise((_, reject) => {
        fail = reject;
      });
    const acquiring = exports.acquire('latest').catch((error: unknown) => error);
    while (overlays.opened.length === 0) await turn();
    expect(exports.overlayBytes).toBe(0);
    const closing = exports.close();
    fail(new OverlayError('no', { reason: 'io' }));
    await closing;
    expect(await acquiring).toBeInstanceOf(OverlayError);
  });
});

describe('idle devices', () => {
  it('are kept, eight of them, the longest idle closed first', async () => {
    const { exports, names } = await manyExports();
    const leases = await Promise.all(names.map((name) => acquire(exports, name)));
    expect(overlays.inUse.size).toBe(names.length);
    // The first one taken is the last one given back: it is not what was idle longest.
    for (const { release } of leases.reverse()) {
      release();
      release();
    }
    while (overlays.inUse.size > 8) await turn();
    await turn();
    expect(overlays.inUse.size).toBe(8);
    expect(overlays.flushed).toBe(names.length - 8);
    overlays.opened.length = 0;
    (await acquire(exports, names[0]!)).release();
    expect(overlays.opened).toEqual([]);
    await exports.close();
    expect(overlays.inUse.size).toBe(0);
  });

  it('with writes in memory only are never closed', async () => {
    overlays.isVolatile = true;
    overlays.dirtyBytes = 4096;
    const { exports, names } = await manyExports();
    for (const name of names) (await acquire(exports, name)).release();
    await turn();
    expect(overlays.inUse.size).toBe(names.length);
    expect(exports.overlayBytes).toBe(names.length * 4096);
    await exports.close();
  });

  it('that are being closed open again only when that is done', async () => {
    const { exports, names } = await manyExports();
    let finish = () => {};
    const closed = new Promise<void>((resolve) => {
      finish = resolve;
    });
    overlays.beforeClose = () => closed;
    for (const name of names) (await acquire(exports, name)).release();
    overlays.opened.length = 0;
    const again = acquire(exports, names[0]!); // The first idle one: it is closing.
    // Opening the snapshot itself comes before its overlay: whoever did not wait would have it by now.
    const store = await opening;
    for (let i = 0; i < 5; i++) await (await store.openSource(store.snapshots[0]!, '/')).close();
    expect(overlays.opened).toEqual([]);
    finish();
    await again; // It would be rejected, were its overlay open twice.
    expect(overlays.opened).toEqual([names[0]]);
    await exports.close();
  });

  it('whose flush fails are closed all the same', async () => {
    const { exports, names } = await manyExports();
    overlays.flush = () => Promise.reject(new OverlayError('EIO', { reason: 'io' }));
    for (const name of names) (await acquire(exports, name)).release();
    while (overlays.inUse.size > 8) await turn();
    await expect(exports.close()).rejects.toThrow('EIO');
    expect(overlays.inUse.size).toBe(0);
  });
});
