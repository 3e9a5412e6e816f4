/** Copies of overlays on a file system that can share blocks between files: XFS, in an image of our own. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/units.ts';
import { DirectoryOverlays } from '../../src/device/directory-overlays.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { firstDifference } from '../support/overlay-model.ts';
import { runSeed, seededRandom } from '../support/overlay-random.ts';
import { commandPath, requires } from '../support/requires.ts';

const need = requires('mkfs.xfs', 'mount', 'loop', 'flock');
const folder = mkdtempSync(join(tmpdir(), 'overlay-reflink-'));
const mountPoint = join(folder, 'mounted');
const identity = { snapshotId: '78'.repeat(32), path: '/', layout: {} };
/** The smallest XFS there is has 300 MiB; the image is sparse. */
const IMAGE_BYTES = 320 * MiB;
const WRITTEN_BYTES = 48 * MiB;

describe.skipIf(need.missing)(need.title('a copy of an overlay on XFS with reflinks'), () => {
  beforeAll(() => {
    const image = join(folder, 'xfs.img');
    writeFileSync(image, '');
    truncateSync(image, IMAGE_BYTES);
    execFileSync(commandPath('mkfs.xfs'), ['-q', '-m', 'reflink=1', image]);
    mkdirSync(mountPoint);
    execFileSync('mount', ['-t', 'xfs', '-o', 'loop', image, mountPoint]);
  });
  let overlays: DirectoryOverlays | undefined;
  afterEach(() => overlays?.close());
  afterAll(() => {
    execFileSync('umount', [mountPoint]);
    rmSync(folder, { recursive: true });
  });

  /** Files that are being written hold more than they need until their space is settled. */
  function usedBytes(): number {
    execFileSync('sync', ['--file-system', mountPoint]);
    const { blocks, bfree, bsize } = statfsSync(mountPoint);
    return (blocks - bfree) * bsize;
  }

  it('takes no space of its own until it is written to, open or closed, and both go their own ways', async () => {
    const random = seededRandom(runSeed());
    const content = Buffer.alloc(WRITTEN_BYTES + MiB);
    const base = new MemoryDevice(Buffer.from(content));
    overlays = await DirectoryOverlays.open(join(mountPoint, 'overlays'));
    const device = await overlays.openDevice('one', base, identity);
    const before = usedBytes();
    for (let offset = 0; offset < WRITTEN_BYTES; offset += MiB) {
      const data = random.fill(Buffer.alloc(MiB));
      data.copy(content, offset);
      await device.write(offset, data, { fua: false });
    }
    await device.flush();
    const written = usedBytes();
    expect(written - before).toBeGreaterThanOrEqual(WRITTEN_BYTES);

    await overlays.copy('one', 'of an open one');
    expect(usedBytes() - written).toBeLessThan(MiB);
    await device.close();
    const closed = usedBytes();
    await overlays.copy('one', 'of a closed one');
    expect(usedBytes() - closed).toBeLessThan(MiB);

    const copy = await overlays.openDevice('of an open one', base, identity);
    expect(await firstDifference(copy, content)).toBe(undefined);
    await copy.write(0, Buffer.alloc(MiB, 7), { fua: true });
    const original = await overlays.openDevice('one', base, identity);
    expect(await firstDifference(original, content)).toBe(undefined);
    content.fill(7, 0, MiB);
    expect(await firstDifference(copy, content)).toBe(undefined);
  });
});
