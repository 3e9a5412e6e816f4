/** Records of clones, and what a crash in the middle of making, copying, resetting or removing one leaves. */
import { describe, expect, it } from 'vitest';
import {
  CLONE_FORMAT_VERSION,
  type CloneRecord,
  isCloneName,
  overlayKeyOf,
  parseOverlayKey,
} from '../../../src/clones/clone-record.ts';
import { CloneRegistry } from '../../../src/clones/clone-registry.ts';
import { silentLog } from '../../../src/core/log.ts';
import { copyOverlay, removeOverlay } from '../../../src/device/overlay-copy.ts';
import { writeMetadata } from '../../../src/device/overlay-metadata.ts';
import { type Crash, CrashFileSystem } from '../../support/overlay-crash-fs.ts';
import { metadata } from '../../support/overlay-crash-run.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const DIRECTORY = '/clones';
const record = (name: string, overlayId = '0123456789abcdef'): CloneRecord => ({
  formatVersion: CLONE_FORMAT_VERSION,
  name,
  overlayId,
  storeId: 'ab'.repeat(16),
  isEncrypted: false,
  selector: 'latest',
  parts: [{ snapshot: '12'.repeat(32), path: '/', at: null }],
  layout: {},
  createdMs: 1,
  resetMs: null,
  expiresMs: null,
  isProtected: false,
});
const directoryOf = (clone: CloneRecord) => `${DIRECTORY}/${overlayKeyOf(clone)}`;

/** An overlay with a log of one file; its bytes mean nothing here. */
async function makeOverlay(fileSystem: CrashFileSystem, clone: CloneRecord): Promise<void> {
  const directory = directoryOf(clone);
  await fileSystem.makeDirectory(directory);
  const file = await fileSystem.open(`${directory}/log-0000000000000001`, 'create');
  await file.write([Buffer.from(`written to ${overlayKeyOf(clone)}`)], 0);
  await file.sync();
  await writeMetadata(fileSystem, directory, { ...metadata, exportKey: overlayKeyOf(clone) });
}

async function logOf(fileSystem: CrashFileSystem, clone: CloneRecord): Promise<string | undefined> {
  return fileSystem
    .image()
    .get(`${directoryOf(clone)}/log-0000000000000001`)
    ?.toString();
}

async function expectNoLeftovers(fileSystem: CrashFileSystem, registry: CloneRegistry): Promise<void> {
  const wanted = [...(await registry.list()).values()].flatMap((clone) =>
    clone instanceof Error ? [] : [`${clone.name}.clone`, overlayKeyOf(clone)],
  );
  for (const name of await fileSystem.list(DIRECTORY)) expect(wanted).toContain(name);
}

/** Lets a crash happen after every operation of `change`, in every way, and calls `judge` with what is left. */
async function crashEverywhere(
  prepare: (fileSystem: CrashFileSystem) => Promise<void>,
  change: (fileSystem: CrashFileSystem) => Promise<void>,
  judge: (fileSystem: CrashFileSystem) => Promise<'before' | 'after'>,
): Promise<void> {
  const fileSystem = new CrashFileSystem();
  await prepare(fileSystem);
  const first = fileSystem.operations.length;
  await change(fileSystem);
  const last = fileSystem.operations.length;
  const seen = new Set<string>();
  for (let count = first; count <= last; count++) {
    const crashes: Crash[] = [{ mode: 'kill' }, { mode: 'kill', tornAt: 7 }, { mode: 'drop' }];
    for (let seed = 0; seed < 5; seed++) crashes.push({ mode: 'random', random: seededRandom(seed) });
    for (const crash of crashes) {
      const after = new CrashFileSystem(fileSystem.crash(count, crash));
      const registry = new CloneRegistry(DIRECTORY, after);
      await registry.sweep(silentLog);
      await expectNoLeftovers(after, registry);
      const outcome = await judge(after);
      seen.add(outcome);
      if (count === last) expect(outcome, 'what was said to be done is done').toBe('after');
    }
  }
  expect([...seen].sort(), 'both outcomes were seen').toEqual(['after', 'before']);
}

describe('names of clones', () => {
  it('are no selectors of snapshots and no other names of exports', () => {
    for (const name of ['pg-test', 'x', 'a.b_c', '0g', 'c1', 'db', 'abc', 'Latest2', 'x'.repeat(64)])
      expect(isCloneName(name), name).toBe(true);
    const others = [
      '',
      'latest',
      'LATEST',
      'CAFE',
      '8e457cf5',
      'tag:x',
      'a:/b',
      'a@base',
      'a=b',
      '.x',
      '-x',
      'a b',
      'ü',
      '../x',
    ];
    for (const name of [...others, 'x'.repeat(65)]) expect(isCloneName(name), name).toBe(false);
  });

  it('are found again in the keys of their overlays, whatever is in them', () => {
    for (const name of ['x', 'x.clone-0123456789abcdef', 'a-b.c']) {
      expect(parseOverlayKey(overlayKeyOf(record(name)))).toEqual({ name, overlayId: '0123456789abcdef' });
    }
    for (const key of ['latest', '8e457cf5', 'x.clone-0123', 'lock', '.clone-0123456789abcdef']) {
      expect(parseOverlayKey(key), key).toBeUndefined();
    }
  });
});

describe('a registry', () => {
  it('makes a clone once, finds it, and says what is wrong with a name or a record', async () => {
    const fileSystem = new CrashFileSystem();
    const registry = new CloneRegistry(DIRECTORY, fileSystem);
    await registry.create(record('one'));
    await expect(registry.create(record('one', 'ffffffffffffffff'))).rejects.toThrow(/already/);
    await expect(registry.create(record('latest'))).rejects.toThrow(/newest snapshot/);
    await expect(registry.require('two')).rejects.toThrow(/no clone "two"/);
    expect(await registry.read('one')).toEqual(record('one'));
    const image = fileSystem.image();
    const damaged = Buffer.from(image.get(`${DIRECTORY}/one.clone`)!);
    damaged[60]! ^= 1;
    const renamed = image.get(`${DIRECTORY}/one.clone`)!;
    const after = new CrashFileSystem(
      new Map([...image, [`${DIRECTORY}/broken.clone`, damaged], [`${DIRECTORY}/other.clone`, renamed]]),
    );
    const list = await new CloneRegistry(DIRECTORY, after).list();
    expect([...list.keys()]).toEqual(['broken', 'one', 'other']);
    expect(String(list.get('broken'))).toMatch(/damaged/);
    expect(String(list.get('other'))).toMatch(/record of the clone "one"/);
    expect(list.get('one')).toEqual(record('one'));
  });

  it('makes the same clone for one of many who try at once', async () => {
    const registry = new CloneRegistry(DIRECTORY, new CrashFileSystem());
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => registry.create(record('one'))));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('makes a clone while another process sweeps', async () => {
    const fileSystem = new CrashFileSystem();
    const registry = new CloneRegistry(DIRECTORY, fileSystem);
    let swept = false;
    fileSystem.fault = (kind, path) => {
      const isLink = kind === 'name' && path.endsWith('.new');
      if (!isLink || swept) return undefined;
      swept = true;
      return Object.assign(new Error('swept away'), { code: 'ENOENT' });
    };
    await registry.create(record('one'));
    expect(swept).toBe(true);
    expect(await registry.read('one')).toBeDefined();
  });

  it('sweeps away what no record names, and nothing else', async () => {
    const fileSystem = new CrashFileSystem();
    const [kept, old, lost] = [record('one'), record('one', 'ffffffffffffffff'), record('gone')];
    for (const clone of [kept, old, lost]) await makeOverlay(fileSystem, clone);
    const others = new Map([
      [`${DIRECTORY}/8e457cf5/log-0000000000000001`, Buffer.from('another overlay')],
      [`${DIRECTORY}/broken.clone`, Buffer.from('damaged')],
      [`${DIRECTORY}/broken.clone-0123456789abcdef/log-0000000000000001`, Buffer.from('may be its own')],
      [`${DIRECTORY}/two.clone.0123456789abcdef.new`, Buffer.from('half')],
      [`${DIRECTORY}/notes.new`, Buffer.from('not ours')],
    ]);
    const all = new CrashFileSystem(new Map([...fileSystem.image(), ...others]));
    await new CloneRegistry(DIRECTORY, all).create(kept);
    await new CloneRegistry(DIRECTORY, all).sweep(silentLog);
    const left = [...all.image().keys()].map((path) => path.slice(DIRECTORY.length + 1)).sort();
    expect(left).toEqual([
      '8e457cf5/log-0000000000000001',
      'broken.clone',
      'broken.clone-0123456789abcdef/log-0000000000000001',
      'notes.new',
      'one.clone',
      `${overlayKeyOf(kept)}/log-0000000000000001`,
      `${overlayKeyOf(kept)}/overlay.json`,
    ]);
  });
});

describe('a crash', () => {
  const [one, two] = [record('one'), record('two', 'eeeeeeeeeeeeeeee')];
  const written = 'written to one.clone-0123456789abcdef';

  it('while a clone is made leaves all of it or nothing', async () => {
    await crashEverywhere(
      async () => {},
      (fileSystem) => new CloneRegistry(DIRECTORY, fileSystem).create(one),
      async (fileSystem) => {
        const found = await new CloneRegistry(DIRECTORY, fileSystem).read('one');
        if (found !== undefined) expect(found).toEqual(one);
        return found === undefined ? 'before' : 'after';
      },
    );
  });

  it('while a clone is copied leaves the copy whole or not at all, and the original', async () => {
    await crashEverywhere(
      async (fileSystem) => {
        await makeOverlay(fileSystem, one);
        await new CloneRegistry(DIRECTORY, fileSystem).create(one);
      },
      async (fileSystem) => {
        const [from, to] = [directoryOf(one), directoryOf(two)];
        await copyOverlay(fileSystem, { from, to, exportKey: overlayKeyOf(two), nowMs: 2 });
        await new CloneRegistry(DIRECTORY, fileSystem).create(two);
      },
      async (fileSystem) => {
        const registry = new CloneRegistry(DIRECTORY, fileSystem);
        expect(await registry.read('one')).toEqual(one);
        expect(await logOf(fileSystem, one)).toBe(written);
        const found = await registry.read('two');
        if (found === undefined) return 'before';
        expect(await logOf(fileSystem, two)).toBe(written);
        return 'after';
      },
    );
  });

  it('while a clone is reset leaves what was written, or nothing of it', async () => {
    const fresh = { ...one, overlayId: 'dddddddddddddddd', resetMs: 5 };
    await crashEverywhere(
      async (fileSystem) => {
        await makeOverlay(fileSystem, one);
        await new CloneRegistry(DIRECTORY, fileSystem).create(one);
      },
      async (fileSystem) => {
        await new CloneRegistry(DIRECTORY, fileSystem).write(fresh);
        await removeOverlay(fileSystem, directoryOf(one));
      },
      async (fileSystem) => {
        const found = await new CloneRegistry(DIRECTORY, fileSystem).read('one');
        if (found?.overlayId === fresh.overlayId) return 'after';
        expect(found).toEqual(one);
        expect(await logOf(fileSystem, one)).toBe(written);
        return 'before';
      },
    );
  });

  it('while a clone is removed leaves all of it or nothing', async () => {
    await crashEverywhere(
      async (fileSystem) => {
        await makeOverlay(fileSystem, one);
        await new CloneRegistry(DIRECTORY, fileSystem).create(one);
      },
      async (fileSystem) => {
        await new CloneRegistry(DIRECTORY, fileSystem).remove('one');
        await removeOverlay(fileSystem, directoryOf(one));
      },
      async (fileSystem) => {
        const found = await new CloneRegistry(DIRECTORY, fileSystem).read('one');
        if (found === undefined) return 'after';
        expect(await logOf(fileSystem, one)).toBe(written);
        return 'before';
      },
    );
  });
});
