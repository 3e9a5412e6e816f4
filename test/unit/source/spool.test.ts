import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { macKey, Spool } from '../../../src/source/spool.ts';
import { LogRecorder } from '../../support/fake-plakar.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { requires } from '../../support/requires.ts';

const cleanup = cleanupAfterEach();

function makeSpool({
  directory = temporaryFolder(cleanup),
  ...limits
}: {
  directory?: string;
  bytesMax?: number;
  encrypt?: boolean;
} = {}) {
  const log = new LogRecorder();
  const spool = new Spool({ directory, ...limits, log });
  cleanup.add(() => spool.close());
  return { spool, log, directory };
}

function chunk(bytes: Uint8Array) {
  return { key: macKey(createHash('sha256').update(bytes).digest()), bytes };
}

/** Undefined for a descriptor that is gone already, as that of the list itself. */
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

describe('the spool', () => {
  test('gives back what it kept, from memory while it is written and from the file afterwards', async () => {
    const { spool } = makeSpool();
    const chunks = [randomBytes(100_000), randomBytes(1), randomBytes(4096)].map(chunk);
    const writes = chunks.map(({ key, bytes }) => spool.keep(key, bytes));
    for (const { key, bytes } of chunks) expect(await spool.read(key)).toEqual(bytes);
    await Promise.all(writes);
    for (const { key, bytes } of chunks) expect(await spool.read(key)).toEqual(bytes);
    expect(spool.sizeBytes).toBe(104_097);
  });

  test('shows nothing of what it keeps of an encrypted store, and gives it back', async () => {
    const { spool, directory } = makeSpool({ encrypt: true });
    const marker = 'not for everybody ';
    const { key, bytes } = chunk(Buffer.from(marker.repeat(5000)));
    await spool.keep(key, bytes);
    expect(await spool.read(key)).toEqual(bytes);
    const ours = readdirSync('/proc/self/fd').map((fd) => join('/proc/self/fd', fd));
    const file = ours.find((path) => linkOf(path)?.startsWith(directory));
    const stored = readFileSync(file!);
    expect(stored.length).toBe(bytes.length + 24);
    expect(stored.includes(marker)).toBe(false);
    stored[9]! ^= 1;
    writeFileSync(file!, stored);
    expect(await spool.read(key), 'what was changed').toBe(undefined);
  });

  test('keeps a chunk once', async () => {
    const { spool } = makeSpool();
    const { key, bytes } = chunk(randomBytes(100));
    await Promise.all([spool.keep(key, bytes), spool.keep(key, bytes)]);
    await spool.keep(key, bytes);
    expect(spool.sizeBytes).toBe(100);
  });

  test('leaves no name in its directory', async () => {
    const { spool, directory } = makeSpool();
    await spool.open();
    expect(readdirSync(directory)).toEqual([]);
  });

  test('keeps nothing beyond its limit, warns once, and still reads what it has', async () => {
    const { spool, log } = makeSpool({ bytesMax: 150 });
    const [first, second, third] = [100, 51, 10].map((length) => chunk(randomBytes(length)));
    await spool.keep(first!.key, first!.bytes);
    expect(spool.keeping).toBe(true);
    await spool.keep(second!.key, second!.bytes);
    await spool.keep(third!.key, third!.bytes);
    expect(spool.keeping).toBe(false);
    expect([first, second, third].map((each) => spool.has(each!.key))).toEqual([true, false, false]);
    expect(await spool.read(first!.key)).toEqual(first!.bytes);
    expect(log.messages('warn')).toHaveLength(1);
    expect(log.messages('warn')[0]).toContain('its limit of 150 B is reached');
  });

  test('fills its limit to the last byte', async () => {
    const { spool } = makeSpool({ bytesMax: 150 });
    const exact = chunk(randomBytes(150));
    await spool.keep(exact.key, exact.bytes);
    expect(spool.has(exact.key)).toBe(true);
  });

  test('forgets a chunk that came back wrong', async () => {
    const { spool, log } = makeSpool();
    const { key, bytes } = chunk(randomBytes(100));
    await spool.keep(key, bytes);
    spool.forget(key, 'test');
    expect(spool.has(key)).toBe(false);
    expect(await spool.read(key)).toBeUndefined();
    expect(log.messages('warn')).toHaveLength(1);
  });

  test('a directory that cannot be written to is the operator’s to change when opened, and a warning later', async () => {
    const directory = join(temporaryFolder(cleanup), 'missing');
    const { spool, log } = makeSpool({ directory });
    await expect(spool.open()).rejects.toThrow(UserError);
    await expect(spool.open()).rejects.toThrow(/ENOENT.*--temp-dir/);
    const { key, bytes } = chunk(randomBytes(100));
    await spool.keep(key, bytes);
    expect(spool.keeping).toBe(false);
    expect(spool.has(key)).toBe(false);
    expect(log.messages('warn')).toHaveLength(1);
  });

  test('gives nothing once it is closed', async () => {
    const { spool, log } = makeSpool();
    const { key, bytes } = chunk(randomBytes(100));
    await spool.keep(key, bytes);
    await spool.close();
    await spool.close();
    expect(await spool.read(key)).toBeUndefined();
    await spool.keep(key, bytes);
    expect(spool.has(key)).toBe(false);
    expect(log.messages('warn')).toEqual([]);
  });
});

const need = requires('root', 'mount');
describe.skipIf(need.missing)(need.title('the spool on a full disk'), () => {
  test('keeps nothing more, warns once, and still reads what it has', async () => {
    const directory = temporaryFolder(cleanup);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', directory]);
    cleanup.add(() => execFileSync('umount', [directory]));
    const { spool, log } = makeSpool({ directory });
    const small = chunk(randomBytes(500_000));
    const large = chunk(randomBytes(2_000_000));
    await spool.keep(small.key, small.bytes);
    await spool.keep(large.key, large.bytes);
    expect([spool.has(small.key), spool.has(large.key), spool.keeping]).toEqual([true, false, false]);
    expect(await spool.read(small.key)).toEqual(small.bytes);
    expect(log.messages('warn')).toHaveLength(1);
    expect(log.messages('warn')[0]).toContain('ENOSPC');
  });
});
