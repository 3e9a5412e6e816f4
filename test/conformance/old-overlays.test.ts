/**
 * Overlays that earlier releases made still open, each over the layout it was made over. fixtures/overlays/layout-N/ has
 * one of each version; fixtures/README.md says how they were made.
 */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { UnsupportedError, UserError } from '../../src/core/errors.ts';
import { silentLog } from '../../src/core/log.ts';
import { BLOCK_SIZE, MiB } from '../../src/core/units.ts';
import { parsePlacedSelector, partsOf } from '../../src/exports/composition.ts';
import { type DigestibleDevice, digestDevice } from '../../src/exports/device-digest.ts';
import { KeptOverlays } from '../../src/exports/directory-overlays.ts';
import { OpenStore } from '../../src/exports/open-store.ts';
import { SnapshotDevice } from '../../src/exports/snapshot-device.ts';
import { openSnapshotImage } from '../../src/exports/snapshot-image.ts';
import { LAYOUT_VERSION, type LayoutRequest } from '../../src/ext4/parameters.ts';
import { deriveKey } from '../../src/kloset/codec/key-derivation.ts';
import { cleanupAfterEach, projectRoot, storePath, temporaryFolder } from '../support/fixtures.ts';
import { storeAt } from '../support/kloset.ts';
import { requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const need = requires('flock');
const fixtures = join(projectRoot, 'fixtures/overlays');
const versions = readdirSync(fixtures).map((name) => Number(/^layout-(\d+)$/.exec(name)?.[1]));
/** With what the overlays were made. */
const layout: LayoutRequest = { owner: { uid: 999, gid: 998 }, modeMask: 0o750, free: { bytes: 16 * MiB } };

async function openPlain() {
  const store = await OpenStore.open({
    store: storeAt(storePath('plain')),
    keys: { passphrase: async () => Buffer.alloc(0), deriveKey },
    cacheBytesMax: 64 * MiB,
    inflightBytesMax: 64 * MiB,
  });
  cleanup.add(() => store.close());
  return { store, parts: partsOf(store.snapshots, [parsePlacedSelector('latest')], undefined) };
}

/** A copy of the fixture, with another layout version in its overlay.json if `pretended` says so. */
function copyOverlay(version: number, pretended = version): string {
  const folder = join(temporaryFolder(cleanup), 'overlay');
  cpSync(join(fixtures, `layout-${version}`), folder, { recursive: true });
  const file = join(folder, 'latest/overlay.json');
  const { content } = JSON.parse(readFileSync(file, 'utf8'));
  content.identity.layout.layoutVersion = pretended;
  writeFileSync(file, JSON.stringify({ checksum: crc32(JSON.stringify(content)), content }));
  return folder;
}

async function openDevice(folder: string, request: LayoutRequest = layout): Promise<SnapshotDevice> {
  const { store, parts } = await openPlain();
  const overlays = await KeptOverlays.open(folder, {}, silentLog);
  cleanup.add(() => overlays.close());
  const options = { store, name: 'latest', parts, layout: request, overlays, overlayKey: 'latest', log: silentLog };
  const device = await SnapshotDevice.open(options);
  cleanup.add(() => device.close());
  return device;
}

describe.skipIf(need.missing)(need.title('an overlay of an earlier release'), () => {
  test('is there for every layout version before the newest', () => {
    const before = Array.from({ length: LAYOUT_VERSION - 1 }, (_, i) => i + 1);
    expect(versions.sort((a, b) => a - b)).toEqual(before);
  });

  test.each(versions)('opens over its own layout: version %i', async (version) => {
    const device = await openDevice(copyOverlay(version));
    const { store, parts } = await openPlain();
    const own = await openSnapshotImage({ store, parts, layout, layoutVersion: version });
    cleanup.add(() => own.close());
    const newest = await openSnapshotImage({ store, parts, layout });
    cleanup.add(() => newest.close());
    const rootOf = async (disk: DigestibleDevice) => (await digestDevice(disk, { treeOnly: true })).treeRoot;
    const below: DigestibleDevice = {
      sizeBytes: device.pristine.sizeBytes,
      read: (offset, target) => device.pristine.read(offset, target),
      extents: (range) => [{ ...range, zero: false }],
      close: async () => {},
    };
    expect(await rootOf(below)).toBe(await rootOf(own.image));
    expect(await rootOf(below)).not.toBe(await rootOf(newest.image));
    // What was written to it then.
    const block = Buffer.alloc(BLOCK_SIZE);
    await device.writable.read(device.writable.sizeBytes - BLOCK_SIZE, block);
    expect(block.toString()).toBe(`written under layout version ${version}. `.padEnd(BLOCK_SIZE, '.'));
    await device.writable.read(device.writable.sizeBytes - 10 * BLOCK_SIZE, block);
    expect(block.toString()).toBe('and a second block'.padEnd(BLOCK_SIZE, '.'));
  });

  test('is refused with other parameters, and where its layout is unknown', async () => {
    await expect(openDevice(copyOverlay(1), { ...layout, modeMask: 0o700 })).rejects.toThrow(/modeMask/);
    await expect(openDevice(copyOverlay(1), { ...layout, modeMask: 0o700 })).rejects.toThrow(UserError);
    const newer = openDevice(copyOverlay(1, LAYOUT_VERSION + 1));
    await expect(newer).rejects.toThrow(`layout version ${LAYOUT_VERSION + 1}`);
    await expect(newer).rejects.toThrow(UnsupportedError);
    // The newest layout has another UUID at least.
    await expect(openDevice(copyOverlay(1, LAYOUT_VERSION))).rejects.toThrow(UserError);
  });
});
