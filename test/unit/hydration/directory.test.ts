import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exitCodes, UserError } from '../../../src/core/errors.ts';
import { toHex } from '../../../src/core/mac.ts';
import { nodeFileSystem, type OverlayFileSystem } from '../../../src/device/file-system.ts';
import { decodeRecord, indexHeader, RECORD_BYTES } from '../../../src/hydration/format.ts';
import { HydrateDirectory } from '../../../src/hydration/hydrate-directory.ts';
import { resourceTypes } from '../../../src/kloset/format.ts';
import { ManualClock } from '../../support/fault-store.ts';
import { fixturePassphrase, openFixture } from '../../support/fixture-stores.ts';
import { cleanupAfterEach, copyOfStore, storePath, temporaryFolder } from '../../support/fixtures.ts';
import { hydrateFixture, openAway, openHydrating, rootOfDisk } from '../../support/hydration.ts';
import { storeAt } from '../../support/kloset.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { requires } from '../../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires('flock');

function newDirectory(): string {
  return join(temporaryFolder(cleanup), 'hydrated');
}

function recordsOf(directory: string): { readonly bytes: Buffer; readonly at: number }[] {
  const index = readFileSync(join(directory, 'index'));
  const count = (index.length - indexHeader.sizeBytes) / RECORD_BYTES;
  return Array.from({ length: count }, (_, i) => {
    const at = indexHeader.sizeBytes + i * RECORD_BYTES;
    return { at, bytes: index.subarray(at, at + RECORD_BYTES) };
  });
}

function chunkRecords(directory: string) {
  return recordsOf(directory).flatMap(({ bytes, at }) => {
    const decoded = decodeRecord(bytes);
    return decoded !== undefined && 'blob' in decoded && decoded.blob.type === resourceTypes.chunk
      ? [{ at, blob: decoded.blob }]
      : [];
  });
}

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at]! ^= 0x40;
  writeFileSync(file, bytes);
}

const rootInStore = async (name: string) => {
  const store = await openFixture(name);
  cleanup.add(() => store.close());
  return rootOfDisk(store, store.snapshots[0]!);
};

describe.skipIf(need.missing)(need.title('a hydrated directory'), () => {
  test('is its owner’s alone, and has CONFIG as the store has it', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'encrypted', directory);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(statSync(join(directory, 'data')).mode & 0o777).toBe(0o700);
    const files = [
      'CONFIG',
      'index',
      'lock',
      ...readdirSync(join(directory, 'data')).map((name) => join('data', name)),
    ];
    for (const file of files) expect(statSync(join(directory, file)).mode & 0o777, file).toBe(0o600);
    expect(readFileSync(join(directory, 'CONFIG'))).toEqual(readFileSync(join(storePath('encrypted'), 'CONFIG')));
  });

  test('of an encrypted store shows nothing without the passphrase', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'encrypted', directory);
    expect(fixturePassphrase('encrypted')).toBeDefined();
    const keys = {
      passphrase: async () => Buffer.from('wrong'),
      deriveKey: (await import('../../../src/kloset/codec/key-derivation.ts')).deriveKey,
    };
    await expect(openAway(cleanup, 'encrypted', directory, { keys })).rejects.toMatchObject({
      exitCode: exitCodes.passphrase,
    });
  });

  test('torn at any byte of its last record is one whose snapshot is not whole, and is made whole', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'wide', directory);
    const root = await rootInStore('wide');
    const index = join(directory, 'index');
    const whole = readFileSync(index);
    for (let cut = 1; cut <= RECORD_BYTES; cut++) {
      writeFileSync(index, whole.subarray(0, whole.length - cut));
      await expect(openAway(cleanup, 'wide', directory)).rejects.toThrow(/there by 100 %/);
    }
    await hydrateFixture(cleanup, 'wide', directory);
    const away = await openAway(cleanup, 'wide', directory);
    expect(await rootOfDisk(away, away.snapshots[0]!)).toBe(root);
  });

  test('what no record names is cut off by the next writer', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'plain', directory, (all) => all.slice(0, 0));
    const data = join(directory, 'data/00000001');
    expect(existsSync(data)).toBe(false);
    writeFileSync(data, Buffer.alloc(12_345, 7));
    await hydrateFixture(cleanup, 'plain', directory);
    const end = Math.max(
      ...recordsOf(directory).flatMap(({ bytes }) => {
        const decoded = decodeRecord(bytes);
        return decoded !== undefined && 'blob' in decoded ? [decoded.blob.offset + decoded.blob.length] : [];
      }),
    );
    expect(statSync(data).size).toBe(end);
  });

  test('begins another data file where one is full', async () => {
    const directory = newDirectory();
    const hydrating = await openHydrating(cleanup, 'plain', directory, { dataFileBytesMax: 16 * 1024 });
    await hydrating.hydrate(hydrating.store.snapshots).done;
    await hydrating.close();
    expect(readdirSync(join(directory, 'data')).length).toBeGreaterThan(2);
    const away = await openAway(cleanup, 'plain', directory);
    expect(await rootOfDisk(away, away.snapshots[0]!)).toBe(await rootInStore('plain'));
  });

  test('has one writer', async () => {
    const directory = newDirectory();
    await openHydrating(cleanup, 'plain', directory);
    const second = openHydrating(cleanup, 'plain', directory);
    await expect(second).rejects.toThrow(`process ${process.pid} hydrates into ${directory} already`);
  });

  test('of another store is refused', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'plain', directory);
    const replica = new HydrateDirectory(directory, { isWriter: false });
    cleanup.add(() => replica.close());
    await expect(openFixture('zstd', { replica })).rejects.toThrow(/from another store/);
  });

  test('that is not there is an error, unless it is to be made', async () => {
    const replica = new HydrateDirectory(newDirectory(), { isWriter: false });
    await expect(openFixture('plain', { replica })).rejects.toThrow(/--hydrate fills it/);
  });

  test('shows others what its writer adds', async () => {
    const directory = newDirectory();
    const hydrating = await openHydrating(cleanup, 'plain', directory);
    const clock = new ManualClock();
    const replica = new HydrateDirectory(directory, { isWriter: false, clock });
    cleanup.add(() => replica.close());
    const reader = await openFixture('plain', { replica });
    cleanup.add(() => reader.close());
    await hydrating.hydrate(hydrating.store.snapshots).done;
    await clock.runUntilIdle(new Promise<void>((resolve) => clock.after(60_000, resolve)));
    const before = reader.counters.storeRequests;
    await rootOfDisk(reader, reader.snapshots[0]!);
    expect(reader.counters.storeRequests).toBe(before);
    expect(reader.counters.replicaBlobs).toBeGreaterThan(0);
  });
});

describe.skipIf(need.missing)(need.title('damage in a hydrated directory'), () => {
  test('of bytes: the store is read, the log says so, and they are written anew', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'zstd', directory);
    const root = await rootInStore('zstd');
    const [victim] = chunkRecords(directory);
    flip(join(directory, 'data/00000001'), victim!.blob.offset + (victim!.blob.length >> 1));
    const { log, lines } = recordingLog();
    const hydrating = await openHydrating(cleanup, 'zstd', directory, { log });
    expect(await rootOfDisk(hydrating.store, hydrating.store.snapshots[0]!)).toBe(root);
    expect(lines.filter(({ message }) => message.includes('is damaged'))).toHaveLength(1);
    await hydrating.writer.commit();
    await hydrating.close();
    expect(chunkRecords(directory).filter(({ blob }) => toHex(blob.mac) === toHex(victim!.blob.mac))).toHaveLength(2);
    const away = await openAway(cleanup, 'zstd', directory);
    expect(await rootOfDisk(away, away.snapshots[0]!)).toBe(root);
  });

  test('of bytes without a store is an error, never a wrong byte', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'sha256-nocompress', directory);
    const root = await rootInStore('sha256-nocompress');
    const file = join(directory, 'data/00000001');
    const whole = readFileSync(file);
    const victims = recordsOf(directory).flatMap(({ bytes }) => {
      const decoded = decodeRecord(bytes);
      return decoded !== undefined && 'blob' in decoded && decoded.blob.length > 0 ? [decoded.blob] : [];
    });
    const errors = new Map<number, number>();
    for (const [i, { type, offset, length }] of victims.entries()) {
      // Every blob would take a minute; each type, and some of each, will do.
      if (i % 12 !== 0 && (errors.get(type) ?? 0) > 0) continue;
      flip(file, offset + (length >> 1));
      const away = await openAway(cleanup, 'sha256-nocompress', directory);
      // A header that is damaged leaves no snapshot.
      const [header] = away.snapshots;
      const found = header === undefined ? undefined : await rootOfDisk(away, header).catch(() => undefined);
      if (found !== undefined) expect(found).toBe(root);
      errors.set(type, (errors.get(type) ?? 0) + (found === undefined ? 1 : 0));
      await away.close();
      writeFileSync(file, whole);
    }
    // Others may be lost without being missed: what a list of entries says stands in the tree of files, too.
    for (const type of [resourceTypes.snapshot, resourceTypes.chunk]) {
      expect(errors.get(type), `type ${type}`).toBeGreaterThan(0);
    }
  });

  test('of the index, or a data file that is too short: hydrating fetches what is missing', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'gzip', directory);
    const root = await rootInStore('gzip');
    for (const harm of [
      () => flip(join(directory, 'index'), chunkRecords(directory)[3]!.at + 20),
      () => truncateSync(join(directory, 'data/00000001'), 1000),
    ]) {
      harm();
      const { log, lines } = recordingLog();
      const hydrating = await openHydrating(cleanup, 'gzip', directory, { log });
      expect(lines.filter(({ level }) => level === 'warn').length).toBeGreaterThan(0);
      await hydrating.hydrate(hydrating.store.snapshots).done;
      await hydrating.close();
      const away = await openAway(cleanup, 'gzip', directory);
      expect(await rootOfDisk(away, away.snapshots[0]!)).toBe(root);
    }
  });

  test('of the store is named and left out', async () => {
    const copy = copyOfStore(cleanup, storePath('plain'));
    const packfiles = readdirSync(join(copy, 'packfiles'), { recursive: true, withFileTypes: true }).filter((entry) =>
      entry.isFile(),
    );
    const [largest] = packfiles
      .map(({ parentPath, name }) => join(parentPath, name))
      .sort((a, b) => statSync(b).size - statSync(a).size);
    flip(largest!, 4000);
    const directory = newDirectory();
    const { log, lines } = recordingLog();
    const hydrating = await openHydrating(cleanup, 'plain', directory, { store: storeAt(copy), log });
    await hydrating.hydrate(hydrating.store.snapshots).done;
    const named = lines.filter(({ message }) => message.startsWith('Not hydrated: '));
    expect(named).toHaveLength(1);
    expect(lines.some(({ message }) => message.includes('but for 1 damaged or missing blobs'))).toBe(true);
  });
});

/** Fails writes once so many bytes are written to data files. */
function fullDisk(room: { bytes: number }): OverlayFileSystem {
  return {
    ...nodeFileSystem,
    async open(path, access) {
      const file = await nodeFileSystem.open(path, access);
      if (!path.includes('/data/')) return file;
      return {
        ...file,
        async write(buffers, position) {
          const bytes = buffers.reduce((sum, { length }) => sum + length, 0);
          if (bytes > room.bytes)
            throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' });
          room.bytes -= bytes;
          await file.write(buffers, position);
        },
      };
    },
  };
}

describe.skipIf(need.missing)(need.title('hydrating'), () => {
  test('waits, with health degraded, while the disk is full, and goes on', async () => {
    const directory = newDirectory();
    const room = { bytes: 20_000 };
    const clock = new ManualClock();
    const hydrating = await openHydrating(cleanup, 'plain', directory, { fileSystem: fullDisk(room) });
    const hydration = hydrating.hydrate(hydrating.store.snapshots, { clock });
    await expect.poll(() => hydration.status.state, { timeout: 20_000 }).toBe('waiting');
    expect(hydration.status.reason).toContain('no space left');
    expect(hydrating.health.report().status).toBe('degraded');
    room.bytes = Number.POSITIVE_INFINITY;
    expect((await clock.runUntilIdle(hydration.done)).status).toBe('fulfilled');
    expect(hydrating.health.report().status).toBe('ok');
    await hydrating.close();
    const away = await openAway(cleanup, 'plain', directory);
    expect(await rootOfDisk(away, away.snapshots[0]!)).toBe(await rootInStore('plain'));
  });

  test('does not begin without room for all of it', async () => {
    const hydrating = await openHydrating(cleanup, 'plain', newDirectory());
    const hydration = hydrating.hydrate(hydrating.store.snapshots, {
      clock: new ManualClock(),
      freeBytes: async () => 1024,
    });
    await expect.poll(() => hydration.status.state, { timeout: 20_000 }).toBe('waiting');
    expect(hydration.status.reason).toMatch(/has 1\.0 KiB free, hydrating snapshot \w{8} needs 64\.0 MiB/);
    expect(hydrating.store.counters.hydratedBytes).toBe(0);
  });

  test('stops at once, and goes on where it was', async () => {
    const directory = newDirectory();
    const first = await openHydrating(cleanup, 'album', directory);
    // At one byte a second only the first fetch gets through.
    const slow = first.hydrate(first.store.snapshots.slice(0, 1), { bytesPerSecond: 1 });
    await expect
      .poll(() => first.store.counters.storeBytes + slow.status.doneBytes, { timeout: 20_000 })
      .toBeGreaterThan(0);
    await slow.stop();
    expect(slow.status.state).toBe('stopped');
    const rate = first.hydrate(first.store.snapshots.slice(0, 1));
    await rate.done;
    const all = first.store.counters.hydratedBlobs;
    await first.close();
    const again = await openHydrating(cleanup, 'album', directory);
    await again.hydrate(again.store.snapshots.slice(0, 1)).done;
    expect(again.store.counters.hydratedBlobs).toBe(0);
    expect(all).toBeGreaterThan(100);
  });

  test('takes what clients read, and fetches none of it again', async () => {
    const directory = newDirectory();
    const hydrating = await openHydrating(cleanup, 'manychunks', directory);
    hydrating.writer.takesOffers = true;
    await rootOfDisk(hydrating.store, hydrating.store.snapshots[0]!);
    await hydrating.writer.commit();
    const byClients = hydrating.store.counters.hydratedBlobs;
    expect(byClients).toBeGreaterThan(0);
    await hydrating.hydrate(hydrating.store.snapshots.slice(0, 1)).done;
    const records = chunkRecords(directory).map(({ blob }) => toHex(blob.mac));
    expect(new Set(records).size).toBe(records.length);
  });

  test('what is not whole is refused without the store, with the share that is there', async () => {
    const directory = newDirectory();
    await hydrateFixture(cleanup, 'plain', directory, (all) => all.slice(0, 0));
    const refused = openAway(cleanup, 'plain', directory);
    await expect(refused).rejects.toBeInstanceOf(UserError);
    await expect(refused).rejects.toMatchObject({ exitCode: exitCodes.noStore });
    await expect(refused).rejects.toThrow(/holds no snapshot\. Once the store is back, serve it with --hydrate/);
  });
});
