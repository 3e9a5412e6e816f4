import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCacheDirectory } from '../../../src/cache/cache-directory.ts';
import { readColumns, writeColumns } from '../../../src/cache/columns.ts';
import { LEFTOVER_AGE_MS } from '../../../src/cache/limits.ts';
import { UserError } from '../../../src/core/errors.ts';
import { silentLog } from '../../../src/core/log.ts';
import { cachedFiles, LogLines, readAll, storeCache } from '../../support/cache.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { seededRandom } from '../../support/overlay-random.ts';
import { requires } from '../../support/requires.ts';

const cleanup = cleanupAfterEach();
/** A directory that passes. */
function folder(): string {
  return temporaryFolder(cleanup);
}
const SEGMENT = 64;
const content = Buffer.from(Array.from({ length: 5 * SEGMENT + 7 }, (_, i) => (i * 7) % 251));
const writeContent = (bytes: Uint8Array) => (writer: { write(data: Uint8Array): Promise<void> }) => writer.write(bytes);

describe.each([false, true])('a cached file (encrypted: %s)', (isEncrypted) => {
  const open = (directory: string, log = new LogLines()) => storeCache(directory, { isEncrypted, log });

  it('gives back what was written, whatever its length, in any order, to whoever opens it later', async () => {
    const directory = folder();
    const cache = await open(directory);
    for (const length of [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, content.length]) {
      const bytes = content.subarray(0, length);
      expect(await cache.write('file', writeContent(bytes), { segmentBytes: SEGMENT })).toBe(true);
      expect(await readAll(await open(directory), 'file'), `${length} bytes`).toEqual(new Uint8Array(bytes));
    }
    const checked = await cache.read('file', async (reader) => {
      for (let from = 0; from < content.length; from += 13) {
        for (const length of [0, 1, SEGMENT, 3 * SEGMENT]) {
          const target = new Uint8Array(Math.min(length, content.length - from));
          await reader.read(from, target);
          expect(Buffer.compare(target, content.subarray(from, from + target.length))).toBe(0);
        }
      }
      return true;
    });
    expect(checked).toBe(true);
    expect(await readAll(cache, 'another')).toBeUndefined();
  });

  it('is missing, removed and reported wherever one of its bytes is another', async () => {
    const directory = folder();
    const log = new LogLines();
    const cache = await open(directory, log);
    const random = seededRandom(5);
    for (let round = 0; round < 60; round++) {
      await cache.write('file', writeContent(content), { segmentBytes: SEGMENT });
      const [path] = cachedFiles(directory);
      const bytes = readFileSync(path!);
      // Bytes 20 to 32 of the header are padding: the only ones that say nothing.
      const at = [...bytes.keys()].filter((i) => i < 20 || i >= 32)[random.below(bytes.length - 12)]!;
      bytes[at]! ^= 1 << random.below(8);
      writeFileSync(path!, bytes);
      expect(await readAll(cache, 'file'), `byte ${at}`).toBeUndefined();
      expect(log.warnings.splice(0)).toEqual([expect.stringContaining(path!)]);
      expect(existsSync(path!)).toBe(false);
    }
  });

  it('is missing wherever it is cut off, and with bytes behind its end', async () => {
    const directory = folder();
    const cache = await open(directory);
    const write = () => cache.write('file', writeContent(content), { segmentBytes: SEGMENT });
    await write();
    const [path] = cachedFiles(directory);
    const whole = readFileSync(path!);
    for (let length = 0; length < whole.length; length += 5) {
      await write();
      truncateSync(path!, length);
      expect(await readAll(cache, 'file'), `cut at ${length}`).toBeUndefined();
    }
    // Whole segments less: the same as a shorter file, but for the mark of the last one.
    await write();
    truncateSync(path!, 64 + 2 * (SEGMENT + 16));
    expect(await readAll(cache, 'file')).toBeUndefined();
    await write();
    writeFileSync(path!, Buffer.concat([whole, Buffer.alloc(SEGMENT)]));
    expect(await readAll(cache, 'file')).toBeUndefined();
  });

  it('is missing in the place of another file, and of another store', async () => {
    const directory = folder();
    const log = new LogLines();
    const cache = await open(directory, log);
    await cache.write('one', writeContent(content));
    const [one] = cachedFiles(directory);
    await cache.write('two', writeContent(Buffer.from('two')));
    const two = cachedFiles(directory).find((path) => path !== one)!;
    copyFileSync(one!, two);
    expect(await readAll(cache, 'two')).toBeUndefined();
    const foreign = await storeCache(directory, { isEncrypted, log, key: 2 });
    await foreign.write('one', writeContent(Buffer.from('foreign')));
    const theirs = cachedFiles(directory).find((path) => dirname(path) !== dirname(one!))!;
    copyFileSync(theirs, one!);
    expect(await readAll(cache, 'one')).toBeUndefined();
    expect(log.warnings).toHaveLength(2);
  });

  it('of an encrypted store shows nothing of what it holds, neither do names', async () => {
    const directory = folder();
    const cache = await open(directory);
    await cache.write('secret-name', writeContent(Buffer.from('secret-content')));
    const [path] = cachedFiles(directory);
    expect(path).not.toContain('secret');
    expect(readFileSync(path!).includes('secret-content')).toBe(!isEncrypted);
    expect(readFileSync(path!).includes('secret-name')).toBe(false);
  });
});

describe('the cache', () => {
  it('shows a file only when it is complete: a crash before leaves the old one', async () => {
    const directory = folder();
    const cache = await storeCache(directory);
    await cache.write('file', writeContent(Buffer.from('old')));
    const failed = cache.write('file', async (writer) => {
      await writer.write(Buffer.from('new'));
      expect(Buffer.from((await readAll(cache, 'file'))!).toString()).toBe('old');
      throw new Error('the store is away');
    });
    await expect(failed).rejects.toThrow('the store is away');
    expect(Buffer.from((await readAll(cache, 'file'))!).toString()).toBe('old');
    expect(cachedFiles(directory)).toHaveLength(1);
  });

  it('has directories and files that are for us alone', async () => {
    const directory = join(folder(), 'made');
    await openCacheDirectory({ path: directory, isDefault: false }, silentLog);
    const cache = await storeCache(directory);
    await cache.write('file', writeContent(content));
    const [path] = cachedFiles(directory);
    const modes = [directory, dirname(path!), path!].map((each) => statSync(each).mode & 0o777);
    expect(modes).toEqual([0o700, 0o700, 0o600]);
  });

  it('sweeps what dead writers left, and nothing that is being written', async () => {
    const directory = folder();
    await (await storeCache(directory)).write('file', writeContent(content));
    const [file] = cachedFiles(directory);
    const [fresh, stale] = ['tmp-1-fresh', 'tmp-1-stale'].map((name) => join(dirname(file!), name)) as [string, string];
    writeFileSync(fresh, 'x');
    writeFileSync(stale, 'x');
    const then = Date.now() / 1000 - LEFTOVER_AGE_MS / 1000 - 60;
    utimesSync(stale, then, then);
    await openCacheDirectory({ path: directory, isDefault: false }, silentLog);
    expect(cachedFiles(directory)).toEqual([file, fresh].sort());
  });

  it('stays below its size: what was used least recently goes first', async () => {
    const directory = folder();
    const cache = await storeCache(directory, { bytesMax: 3 * (1000 + 64 + 16) });
    const bytes = Buffer.alloc(1000, 1);
    for (const [i, name] of ['a', 'b', 'c'].entries()) {
      await cache.write(name, writeContent(bytes));
      const newest = cachedFiles(directory).find((path) => statSync(path).mtimeMs > Date.now() - 3_600_000)!;
      utimesSync(newest, 1_000_000 + i, 1_000_000 + i);
    }
    await readAll(cache, 'a'); // Used: now the newest.
    await cache.write('d', writeContent(bytes));
    const left = await Promise.all(
      ['a', 'b', 'c', 'd'].map(async (name) => (await readAll(cache, name)) !== undefined),
    );
    expect(left).toEqual([true, false, true, true]);
  });

  it('never follows a symlink in a file’s place', async () => {
    const directory = folder();
    const cache = await storeCache(directory);
    await cache.write('file', writeContent(content));
    const [path] = cachedFiles(directory);
    const aside = join(folder(), 'aside');
    copyFileSync(path!, aside);
    await cache.discard('file', 'for the test');
    symlinkSync(aside, path!);
    expect(await readAll(cache, 'file')).toBeUndefined();
    expect(existsSync(aside)).toBe(true);
  });

  it('does without where it cannot be written, and says so once', async () => {
    const directory = folder();
    const log = new LogLines();
    const cache = await storeCache(directory, { log });
    await cache.write('file', writeContent(content));
    const [path] = cachedFiles(directory);
    const store = dirname(path!);
    // Root may write anywhere: a file in the directory's place stops everybody.
    rmSync(store, { recursive: true });
    writeFileSync(store, 'no directory');
    expect(await cache.write('file', writeContent(content))).toBe(false);
    expect(await cache.write('file', writeContent(content))).toBe(false);
    expect(log.warnings).toEqual([expect.stringContaining(directory)]);
  });
});

describe('a cache directory', () => {
  const asked = (path: string) => openCacheDirectory({ path, isDefault: false }, silentLog);

  it.each([0o770, 0o707, 0o777])('is refused where others may write to it (%o)', async (mode) => {
    const path = folder();
    chmodSync(path, mode);
    const error = await asked(path).catch((each) => each);
    expect(error).toBeInstanceOf(UserError);
    expect(error).toMatchObject({ exitCode: 64, message: expect.stringContaining('--no-cache') });
  });

  const root = requires('root');
  it.skipIf(root.missing)(root.title('is refused where it is a stranger’s'), async () => {
    const path = folder();
    chownSync(path, 12345, 12345);
    await expect(asked(path)).rejects.toThrow(/belongs to another user/);
  });

  it('is refused where it is a file, or below one', async () => {
    const file = join(folder(), 'file');
    writeFileSync(file, 'x');
    await expect(asked(file)).rejects.toThrow(UserError);
    await expect(asked(join(file, 'below'))).rejects.toThrow(UserError);
  });

  it('is made where it is missing', async () => {
    const path = join(folder(), 'a/b');
    expect(await asked(path)).toBe(path);
    expect(existsSync(path)).toBe(true);
  });

  it('that nobody asked for is done without, with a warning', async () => {
    const path = folder();
    chmodSync(path, 0o777);
    const log = new LogLines();
    expect(await openCacheDirectory({ path, isDefault: true }, log)).toBeUndefined();
    expect(log.warnings).toEqual([expect.stringContaining(path)]);
  });
});

describe('columns', () => {
  const columns = {
    small: Uint8Array.of(1, 2, 255),
    middle: Uint16Array.of(1, 65535),
    large: Uint32Array.of(2 ** 32 - 1),
    signed: Int32Array.of(-1, 5),
    wide: Float64Array.of(-0.5, 2 ** 60, Number.NaN),
    none: new Float64Array(0),
  };

  it('come back as they were, with their values', async () => {
    const cache = await storeCache(folder());
    await cache.write('columns', (writer) => writeColumns(writer, { values: { a: [1, 'ü'] }, columns }));
    const read = await cache.read('columns', (reader) => readColumns(reader));
    expect(read!.values).toEqual({ a: [1, 'ü'] });
    expect(read!.column('small', 'u8')).toEqual(columns.small);
    expect(read!.column('middle', 'u16')).toEqual(columns.middle);
    expect(read!.column('large', 'u32')).toEqual(columns.large);
    expect(read!.column('signed', 'i32')).toEqual(columns.signed);
    expect(read!.column('wide', 'f64')).toEqual(columns.wide);
    expect(read!.column('none', 'f64')).toEqual(columns.none);
    expect(() => read!.column('small', 'u16')).toThrow(/no column small/);
  });

  it('are missing where the file holds something else', async () => {
    const cache = await storeCache(folder());
    for (const bytes of [[], [1], [255, 255, 255, 255], [2, 0, 0, 0, 0x7b, 0x7d]]) {
      await cache.write('columns', writeContent(Uint8Array.from(bytes)));
      expect(await cache.read('columns', (reader) => readColumns(reader))).toBeUndefined();
    }
  });
});
