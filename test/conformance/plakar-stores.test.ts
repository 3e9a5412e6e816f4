/** Stores that the real plakar makes here and now, compared with their source entry by entry, and with `plakar cat`. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { entryTypes } from '../../src/core/snapshot-tree.ts';
import type { KlosetSource } from '../../src/source/kloset-source.ts';
import { cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { openStore, pathsOf, storeAt } from '../support/kloset.ts';
import { privatePlakarEnvironment } from '../support/plakar-server-real.ts';
import { commandPath, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const PASSPHRASE = 'a passphrase of tests';
/** Seven commands of plakar, each with Argon2id over 256 MiB: 20 seconds altogether, many times that on a busy machine. */
const PLAKAR_TIMEOUT_MS = 180_000;
const TEST_TIMEOUT_MS = 900_000;

/** Files of many kinds; `version` changes some. Names are latin1 here, a character a byte. */
function writeSource(folder: string, version: number): void {
  mkdirSync(join(folder, 'deep/er'), { recursive: true });
  mkdirSync(join(folder, 'empty directory'), { recursive: true, mode: 0o1700 });
  const write = (name: string, content: Uint8Array | string) =>
    writeFileSync(Buffer.from(join(folder, name), 'latin1'), content);
  write('empty', '');
  write('text', `version ${version}\n`.repeat(1000));
  write('not utf-8 \xff\xfe', 'x');
  write('new\nline', 'y');
  write('deep/er/zeroes', new Uint8Array(3_000_000));
  if (version === 1) {
    write('deep/random', randomBytes(2_500_000));
    write('gone later', 'z');
    chmodSync(join(folder, 'text'), 0o4751);
    linkSync(join(folder, 'text'), join(folder, 'deep/hard'));
    symlinkSync('../nowhere', join(folder, 'deep/dangling'));
    lutimesSync(join(folder, 'text'), 1_000_000_000.123456, 1_000_000_000.123456);
  } else {
    rmSync(join(folder, 'gone later'));
  }
}

/** Paths below a folder, raw bytes: a recursive readdir takes none. */
function namesBelow(folder: string, inside: Buffer): Buffer[] {
  const at = Buffer.concat([Buffer.from(`${folder}/`), inside]);
  return readdirSync(at, { encoding: 'buffer' }).flatMap((name) => {
    const path = inside.length === 0 ? name : Buffer.concat([inside, Buffer.from('/'), name]);
    const isDirectory = lstatSync(Buffer.concat([Buffer.from(`${folder}/`), path])).isDirectory();
    return isDirectory ? [path, ...namesBelow(folder, path)] : [path];
  });
}

/** Path, type, mode, owner, size, time, target and digest of everything below a folder. */
function describeSource(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of namesBelow(folder, Buffer.alloc(0))) {
    const path = Buffer.concat([Buffer.from(`${folder}/`), name]);
    const stat = lstatSync(path, { bigint: true });
    const kind = stat.isDirectory() ? 'directory' : stat.isSymbolicLink() ? 'symlink' : 'file';
    const target = kind === 'symlink' ? readlinkSync(path, 'latin1') : '';
    const digest = kind === 'file' ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
    const columns = [
      kind,
      Number(stat.mode & 0o7777n),
      stat.uid,
      stat.gid,
      kind === 'file' ? stat.size : 0,
      stat.mtimeNs,
      target,
      digest,
    ];
    found.set(`/${name.toString('latin1')}`, columns.join(' '));
  }
  return found;
}

async function describeNative(source: KlosetSource): Promise<Map<string, string>> {
  const { tree } = source;
  const names = Object.fromEntries(Object.entries(entryTypes).map(([name, type]) => [type, name]));
  const found = new Map<string, string>();
  for (const [path, entry] of pathsOf(tree)) {
    if (path === '') continue;
    const kind = names[tree.type[entry]!]!;
    let digest = '';
    if (kind === 'file') {
      const content = new Uint8Array(tree.sizeBytes[entry]!);
      await source.read(entry, 0, content);
      digest = createHash('sha256').update(content).digest('hex');
    }
    const mtime = BigInt(tree.mtimeSeconds[entry]!) * 1_000_000_000n + BigInt(tree.mtimeNanoseconds[entry]!);
    const target = Buffer.from(tree.linkTarget.get(entry) ?? []).toString('latin1');
    const columns = [
      kind,
      tree.mode[entry],
      tree.uid[entry],
      tree.gid[entry],
      tree.sizeBytes[entry],
      mtime,
      target,
      digest,
    ];
    found.set(path, columns.join(' '));
  }
  return found;
}

function plakarIn(folder: string) {
  const environment = { ...privatePlakarEnvironment(cleanup), PLAKAR_PASSPHRASE: PASSPHRASE };
  return (...args: string[]) =>
    execFileSync(commandPath('plakar'), args, {
      env: environment,
      cwd: folder,
      maxBuffer: 1 << 28,
      timeout: PLAKAR_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
}

/** Compares every snapshot of a store with what its source was, newest first. */
async function expectSnapshots(
  location: string,
  sources: readonly Map<string, string>[],
  directory: string,
): Promise<string[]> {
  const opened = await openStore(storeAt(location), { passphrase: PASSPHRASE });
  try {
    expect([opened.snapshots.length, opened.damaged]).toEqual([sources.length, []]);
    for (const [i, header] of opened.snapshots.entries()) {
      const native = await describeNative(await opened.source(header, directory));
      expect(Object.fromEntries(native)).toEqual(Object.fromEntries(sources[i]!));
    }
    return opened.snapshots.map(({ id }) => id);
  } finally {
    await opened.close();
  }
}

const need = requires('plakar', 'root');
describe.skipIf(need.missing)(need.title('a store that plakar has just made'), () => {
  it.each(['plaintext', 'encrypted'])(
    '%s: two backups, an archive of them, one removed, maintenance',
    { timeout: TEST_TIMEOUT_MS },
    async (kind) => {
      const folder = temporaryFolder(cleanup);
      const [source, store, archive] = ['source', 'store', 'all.ptar'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ];
      const plaintext = kind === 'plaintext' ? ['-plaintext'] : [];
      const plakar = plakarIn(folder);
      plakar('at', store, 'create', ...plaintext);
      writeSource(source, 1);
      const first = describeSource(source);
      plakar('at', store, 'backup', source);
      writeSource(source, 2);
      const second = describeSource(source);
      plakar('at', store, 'backup', source);
      const [newest, oldest] = await expectSnapshots(store, [second, first], source);
      // plakar itself gives the same bytes.
      const files = ['text', 'empty', 'deep/er/zeroes', 'deep/random', 'deep/hard'];
      const cat = plakar('at', store, 'cat', ...files.map((file) => `${newest}:${source}/${file}`));
      expect(cat.equals(Buffer.concat(files.map((file) => readFileSync(join(source, file)))))).toBe(true);
      // Of an encrypted one plakar asks a terminal for the passphrase: the archive is of the source then.
      plakar('ptar', ...plaintext, '-o', archive, ...(kind === 'plaintext' ? ['-k', store] : [source]));
      await expectSnapshots(archive, kind === 'plaintext' ? [second, first] : [second], source);
      plakar('at', store, 'rm', '-apply', oldest!);
      plakar('at', store, 'maintenance');
      await expectSnapshots(store, [second], source);
    },
  );
});
