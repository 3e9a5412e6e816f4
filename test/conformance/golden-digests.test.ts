/**
 * The same snapshot and options give the same disk in every release, or LAYOUT_VERSION is raised: overlays rely on it.
 * Old overlays go on with their own version, so each version's digests stay.
 * fixtures/digests.json has the digests of all fixture stores' disks. To make the newest version's anew, after
 * LAYOUT_VERSION was raised or a fixture was added:
 *
 *   KLOSET_NBD_WRITE_DIGESTS=1 npx vitest run --config test/vitest.config.ts test/conformance/golden-digests.test.ts
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { parsePlacedSelector, partsOf } from '../../src/exports/composition.ts';
import { type DeviceDigest, digestDevice } from '../../src/exports/device-digest.ts';
import type { OpenStore } from '../../src/exports/open-store.ts';
import { openSnapshotImage } from '../../src/exports/snapshot-image.ts';
import { LAYOUT_VERSION, type LayoutRequest } from '../../src/ext4/parameters.ts';
import { fixtureStores, openFixture } from '../support/fixture-stores.ts';
import { projectRoot } from '../support/fixtures.ts';

interface GoldenDisk {
  readonly store: string;
  /** As the command line takes them. */
  readonly snapshots: readonly string[];
  readonly into?: string;
  readonly layout?: LayoutRequest;
  readonly sha256: string;
  readonly treeRoot: string;
}
/** All disks as one version of the layout makes them. */
interface GoldenVersion {
  readonly layoutVersion: number;
  readonly disks: readonly GoldenDisk[];
}
interface Golden {
  /** Ascending. */
  readonly versions: readonly GoldenVersion[];
}
type Disk = Omit<GoldenDisk, 'sha256' | 'treeRoot'>;

const goldenFile = join(projectRoot, 'fixtures/digests.json');
const isWriting = process.env.KLOSET_NBD_WRITE_DIGESTS === '1';

/** Disks that need more said than which snapshot: one for each thing that shapes bytes. */
const special: readonly Disk[] = [
  { store: 'album', snapshots: ['latest'], into: 'pgdata/15' },
  { store: 'album', snapshots: ['tag:after:/base=b/after', 'tag:before=a'] },
  { store: 'plain', snapshots: ['latest'], layout: { owner: { uid: 999, gid: 998 }, modeMask: 0o700, spareInodes: 5 } },
  { store: 'plain', snapshots: ['latest'], layout: { sizeBytes: 200 * MiB, label: 'golden', uuid: '6f'.repeat(16) } },
];

async function digestOf(
  store: OpenStore,
  disk: Disk,
  { treeOnly, layoutVersion }: { treeOnly: boolean; layoutVersion: number },
): Promise<DeviceDigest> {
  const parts = partsOf(store.snapshots, disk.snapshots.map(parsePlacedSelector), disk.into);
  const { image, close } = await openSnapshotImage({ store, parts, layout: disk.layout ?? {}, layoutVersion });
  try {
    return await digestDevice(image, { treeOnly });
  } finally {
    await close();
  }
}

/** All disks of a store: one a snapshot, and those that need more said. */
function disksOf(store: OpenStore, name: string): Disk[] {
  const whole = store.snapshots.map(({ id }) => ({ store: name, snapshots: [id] }));
  return [...whole, ...special.filter((disk) => disk.store === name)];
}

const keyOf = ({ store, snapshots, into, layout }: Disk) => JSON.stringify({ store, snapshots, into, layout });
const stores = fixtureStores();
const golden: Golden = existsSync(goldenFile) ? JSON.parse(readFileSync(goldenFile, 'utf8')) : { versions: [] };
const newest = golden.versions.at(-1);

if (isWriting) test('fixtures/digests.json is written', { timeout: 600_000 }, writeGolden);
else describe('the disks of all fixture stores', compareGolden);

function compareGolden(): void {
  test('were recorded for every layout version; if not, the file is to be made anew', () => {
    const versions = Array.from({ length: LAYOUT_VERSION }, (_, i) => i + 1);
    expect(golden.versions.map(({ layoutVersion }) => layoutVersion)).toEqual(versions);
  });

  const cases = golden.versions.flatMap((version) =>
    [...new Set(version.disks.map(({ store }) => store))].map((name) => ({ name, version })),
  );
  test.each(cases)('$name in version $version.layoutVersion', async ({ name, version: { layoutVersion, disks } }) => {
    const store = await openFixture(name);
    try {
      const recorded = disks.filter((disk) => disk.store === name);
      if (layoutVersion === LAYOUT_VERSION) expect(recorded.map(keyOf)).toEqual(disksOf(store, name).map(keyOf));
      for (const disk of recorded) {
        // The hash tree covers every byte; that the plain SHA-256 covers the same ones is shown once: it takes a second.
        const treeOnly = disk !== newest?.disks[0];
        const digest = await digestOf(store, disk, { treeOnly, layoutVersion });
        expect(digest.treeRoot, keyOf(disk)).toBe(disk.treeRoot);
        if (!treeOnly) expect(digest.sha256).toBe(disk.sha256);
      }
    } finally {
      await store.close();
    }
  });

  test('are of no other store', () => {
    expect(stores).toEqual([...new Set(newest?.disks.map(({ store }) => store))]);
  });
}

async function writeGolden(): Promise<void> {
  const disks: GoldenDisk[] = [];
  for (const name of stores) {
    const store = await openFixture(name);
    for (const disk of disksOf(store, name)) disks.push(await writtenDisk(store, disk));
    await store.close();
  }
  const older = golden.versions.filter(({ layoutVersion }) => layoutVersion < LAYOUT_VERSION);
  const versions = [...older, { layoutVersion: LAYOUT_VERSION, disks }];
  writeFileSync(goldenFile, `${JSON.stringify({ versions }, undefined, 2)}\n`);
}

async function writtenDisk(store: OpenStore, disk: Disk): Promise<GoldenDisk> {
  const { sha256, treeRoot } = await digestOf(store, disk, { treeOnly: false, layoutVersion: LAYOUT_VERSION });
  const known = newest?.disks.find((one) => keyOf(one) === keyOf(disk));
  if (known !== undefined && newest?.layoutVersion === LAYOUT_VERSION) {
    expect(treeRoot, `${keyOf(disk)} has changed: raise LAYOUT_VERSION`).toBe(known.treeRoot);
  }
  return { ...disk, sha256: sha256!, treeRoot };
}
