import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../src/core/units.ts';
import { lockDirectory } from '../../../src/device/directory-lock.ts';
import {
  DirectoryOverlays,
  exportDirectoryName,
  listOverlays,
  readOverlayIdentity,
} from '../../../src/device/directory-overlays.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { requires } from '../../support/requires.ts';

const tempDir = mkdtempSync(join(tmpdir(), 'overlays-'));
afterAll(() => rmSync(tempDir, { recursive: true }));
const identity = { snapshotId: '12'.repeat(32), path: '/data', layout: { layoutVersion: 1, size: '10G', owner: null } };
const base = (blocks = 16) => new MemoryDevice(blocks * BLOCK_SIZE);
const need = requires('flock');
let made = 0;
const freshDirectory = () => join(tempDir, `overlays-${made++}`);

describe.skipIf(need.missing)(need.title('DirectoryOverlays'), () => {
  it('remembers what an overlay belongs to, and lists it', async () => {
    const directory = freshDirectory();
    const overlays = await DirectoryOverlays.open(directory);
    expect(await overlays.identityOf('12121212')).toBe(undefined);
    await overlays.openDevice('12121212', base(), identity);
    await overlays.openDevice('tag:nightly/ü', base(), identity);
    expect(await overlays.identityOf('tag:nightly/ü')).toEqual(identity);
    await overlays.close();
    expect(await readOverlayIdentity(directory, '12121212')).toEqual(identity);
    const keys = (await listOverlays(directory)).map(({ metadata }) => metadata.exportKey);
    expect(keys.sort()).toEqual(['12121212', 'tag:nightly/ü']);
  });

  it('refuses an overlay of something else, naming both', async () => {
    const directory = freshDirectory();
    const overlays = await DirectoryOverlays.open(directory);
    await overlays.openDevice('one', base(), identity);
    await overlays.close();
    const again = await DirectoryOverlays.open(directory);
    const attempts = [
      [{ ...identity, snapshotId: '34'.repeat(32) }, base(), ['1212', '3434']],
      [{ ...identity, path: '/other' }, base(), ['"/data"', '"/other"']],
      [{ ...identity, layout: { ...identity.layout, size: '20G' } }, base(), ['size "10G"', '"20G"']],
      [{ ...identity, layout: { ...identity.layout, more: true } }, base(), ['more null', 'true']],
      [identity, base(17), ['sizeBytes 65536', '69632']],
    ] as const;
    for (const [other, device, names] of attempts) {
      const opening = again.openDevice('one', device, other);
      const error = await opening.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toMatchObject({ code: 'USER', exitCode: 64 });
      for (const name of names) expect(String(error)).toContain(name);
    }
    await again.openDevice('one', base(), { ...identity, layout: { owner: null, size: '10G', layoutVersion: 1 } });
    await again.close();
  });

  it('begins again where making an overlay was interrupted, but never over a log', async () => {
    const directory = freshDirectory();
    mkdirSync(join(directory, 'one'), { recursive: true });
    writeFileSync(join(directory, 'one', 'overlay.json.new'), 'half');
    mkdirSync(join(directory, 'two'));
    writeFileSync(join(directory, 'two', 'log-0000000000000001'), '');
    const overlays = await DirectoryOverlays.open(directory);
    await overlays.openDevice('one', base(), identity);
    await expect(overlays.openDevice('two', base(), identity)).rejects.toMatchObject({ code: 'USER' });
    await overlays.close();
    expect(readdirSync(join(directory, 'one'))).toEqual(['overlay.json']);
  });

  it('refuses damaged and newer metadata', async () => {
    const directory = freshDirectory();
    const overlays = await DirectoryOverlays.open(directory);
    const device = await overlays.openDevice('one', base(), identity);
    await device.close();
    const path = join(directory, 'one', 'overlay.json');
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, text.replace('/data', '/dato'));
    await expect(overlays.openDevice('one', base(), identity)).rejects.toMatchObject({ code: 'USER' });
    writeFileSync(path, 'nonsense');
    await expect(overlays.openDevice('one', base(), identity)).rejects.toMatchObject({ code: 'USER' });
    await overlays.close();
  });

  it('says what to do where the directory cannot be used or flock(1) is missing', async () => {
    const file = join(tempDir, 'a-file');
    writeFileSync(file, '');
    await expect(DirectoryOverlays.open(join(file, 'x'))).rejects.toMatchObject({ code: 'USER' });
    const missing = lockDirectory(tempDir, undefined, join(tempDir, 'no-such-flock'));
    await expect(missing).rejects.toMatchObject({ code: 'USER', message: expect.stringContaining('util-linux') });
  });
});

describe('exportDirectoryName', () => {
  it('keeps harmless names, and gives every other key a name of its own', () => {
    expect(exportDirectoryName('1a2b3c4d')).toBe('1a2b3c4d');
    const odd = ['', '..', '.', 'a/b', 'lock', 'a:b', '-x', 'x'.repeat(200), 'sha256:x'];
    const names = odd.map(exportDirectoryName);
    expect(new Set(names).size).toBe(odd.length);
    for (const name of names) expect(name).toMatch(/^sha256-[0-9a-f]{64}$/);
  });
});
