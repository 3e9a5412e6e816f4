/** Directory stores and single-file archives, and what may be wrong with them on disk. */
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  CorruptStoreError,
  exitCodes,
  StoreUnavailableError,
  UnsupportedError,
  UserError,
} from '../../../src/core/errors.ts';
import { OPEN_PACKFILES_MAX } from '../../../src/kloset/limits.ts';
import { LocalStore } from '../../../src/kloset/local-store.ts';
import { PtarStore } from '../../../src/kloset/ptar-store.ts';
import { MissingResourceError, TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { RetryingStore } from '../../../src/kloset/retrying-store.ts';
import { cleanupAfterEach, storePath, temporaryFolder } from '../../support/fixtures.ts';

const cleanup = cleanupAfterEach();
const name = (index: number) => index.toString(16).padStart(2, '0').repeat(32);

/** A directory with packfiles 0 … count - 1, each of 1,000 bytes of its own number. */
function directoryStore(count: number): { root: string; store: LocalStore; pathOf: (index: number) => string } {
  const root = temporaryFolder(cleanup);
  const pathOf = (index: number) => join(root, 'packfiles', name(index).slice(0, 2), name(index));
  for (let i = 0; i < count; i++) {
    mkdirSync(join(root, 'packfiles', name(i).slice(0, 2)), { recursive: true });
    writeFileSync(pathOf(i), Buffer.alloc(1000, i));
  }
  const store = new LocalStore(root);
  cleanup.add(() => store.close());
  return { root, store, pathOf };
}
async function failure(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => expect.unreachable('it did not fail'),
    (error: unknown) => error,
  );
}

describe('a directory', () => {
  it('that is not there, or holds no CONFIG, or is a file, is no store: exit 66', async () => {
    const { root } = directoryStore(1);
    const file = join(root, 'file');
    writeFileSync(file, 'x');
    for (const [place, message] of [
      [join(root, 'missing'), /There is no store at/],
      [root, /is not a Kloset store/],
      [file, /is not a Kloset store/],
    ] as const) {
      const error = await failure(new LocalStore(place).readConfig());
      expect(error).toBeInstanceOf(UserError);
      expect((error as UserError).exitCode).toBe(exitCodes.noStore);
      expect((error as UserError).message).toMatch(message);
    }
  });

  it('with a CONFIG of megabytes is not read', async () => {
    const { root, store } = directoryStore(0);
    writeFileSync(join(root, 'CONFIG'), Buffer.alloc(32 * 1024 + 1));
    expect(await failure(store.readConfig())).toBeInstanceOf(CorruptStoreError);
  });

  it('lists ids only: no temporary files, no strangers, no file in the wrong bucket', async () => {
    const { root, store, pathOf } = directoryStore(3);
    writeFileSync(join(root, 'CONFIG'), 'x');
    expect(await store.list('states')).toEqual([]);
    for (const stray of ['tmp.123', name(1).toUpperCase().replaceAll('1', 'A'), name(2).slice(1), name(2)]) {
      writeFileSync(join(root, 'packfiles', '01', stray), '');
    }
    writeFileSync(join(root, 'packfiles', 'tmp.9'), '');
    writeFileSync(join(root, 'packfiles', 'ff'), ''); // A file where a bucket would be.
    mkdirSync(join(root, 'packfiles', 'zz'));
    writeFileSync(join(root, 'packfiles', 'zz', name(2)), '');
    unlinkSync(pathOf(2));
    expect(await store.list('packfiles')).toEqual([name(0), name(1)]);
  });

  it('whose state vanished says so', async () => {
    const error = await failure(directoryStore(0).store.readState(name(7)));
    expect(error).toBeInstanceOf(StoreUnavailableError);
    expect((error as Error).message).toContain(name(7));
  });

  it('tells a packfile that is gone from one that is cut', async () => {
    const { root, store, pathOf } = directoryStore(2);
    writeFileSync(join(root, 'CONFIG'), 'x');
    unlinkSync(pathOf(0));
    truncateSync(pathOf(1), 500);
    const gone = await failure(store.readPackfile(name(0), 0, new Uint8Array(10)));
    expect(gone).toBeInstanceOf(MissingResourceError);
    expect((gone as Error).message).toContain(`packfile ${name(0)} has vanished from the store`);
    const cut = await failure(store.readPackfile(name(1), 495, new Uint8Array(10)));
    expect(cut).toBeInstanceOf(CorruptStoreError);
    expect((cut as Error).message).toContain(`packfile ${name(1)}: it ends before byte 505`);
    await store.readPackfile(name(1), 490, new Uint8Array(10));
  });

  it('is read again where a packfile came back', async () => {
    const { store, pathOf } = directoryStore(1);
    renameSync(pathOf(0), `${pathOf(0)}.away`);
    await failure(store.readPackfile(name(0), 0, new Uint8Array(10)));
    renameSync(`${pathOf(0)}.away`, pathOf(0));
    const target = new Uint8Array(10).fill(9);
    await store.readPackfile(name(0), 0, target);
    expect(target).toEqual(new Uint8Array(10));
  });

  it('that is away as a whole is waited for: reads and listings go on when it is back', async () => {
    const { root, store } = directoryStore(1);
    writeFileSync(join(root, 'CONFIG'), 'x');
    let isBack = false;
    // Whoever waits for the next attempt finds the directory back where it was.
    const clock = {
      now: () => 0,
      after: (_delayMs: number, action: () => void) => {
        if (!isBack && existsSync(`${root}.away`)) {
          renameSync(`${root}.away`, root);
          isBack = true;
        }
        if (isBack) setImmediate(action);
        return () => undefined;
      },
    };
    const patient = new RetryingStore(store, { isNear: true, clock, requestTimeoutMs: 1e9 });
    const target = new Uint8Array(10).fill(9);
    for (const read of [() => patient.readPackfile(name(0), 0, target), () => patient.list('packfiles')]) {
      renameSync(root, `${root}.away`);
      isBack = false;
      await read();
    }
    expect(target).toEqual(new Uint8Array(10));
    renameSync(root, `${root}.away`);
    cleanup.add(() => rmSync(`${root}.away`, { recursive: true }));
    expect(await failure(new LocalStore(root).readPackfile(name(0), 0, target))).toBeInstanceOf(TransientStoreError);
  });

  it('opens the file anew after a read that failed', async () => {
    const { store, pathOf } = directoryStore(1);
    truncateSync(pathOf(0), 5);
    await failure(store.readPackfile(name(0), 0, new Uint8Array(10)));
    writeFileSync(`${pathOf(0)}.new`, Buffer.alloc(1000, 3));
    renameSync(`${pathOf(0)}.new`, pathOf(0)); // The handle from before would still see the short one.
    const target = new Uint8Array(10);
    await store.readPackfile(name(0), 0, target);
    expect(target).toEqual(new Uint8Array(10).fill(3));
  });

  it('gives the right bytes while handles come and go beneath the readers', async () => {
    const count = OPEN_PACKFILES_MAX + 40;
    const { store } = directoryStore(count);
    const reads = Array.from({ length: 4 * count }, async (_, i) => {
      const index = (i * 7) % count;
      const target = new Uint8Array(100);
      await store.readPackfile(name(index), i % 900, target);
      expect(target.every((byte) => byte === index)).toBe(true);
    });
    await Promise.all(reads);
  });
});

describe('an archive', () => {
  const sound = readFileSync(storePath('ptar-plain', 'archive.ptar'));

  async function open(bytes: Uint8Array): Promise<unknown> {
    const file = join(temporaryFolder(cleanup), 'x.ptar');
    writeFileSync(file, bytes);
    const store = new PtarStore(file);
    cleanup.add(() => store.close());
    return store.readConfig().catch((error: unknown) => error);
  }

  it('that is sound is read', async () => expect(await open(sound)).toEqual(new Uint8Array(sound.subarray(12, 381))));

  it('is refused wherever its writing was interrupted', async () => {
    for (const length of [0, 11, 59, 60, 1000, sound.byteLength - 48, sound.byteLength - 1]) {
      expect(await open(sound.subarray(0, length)), `${length} bytes`).toBeInstanceOf(CorruptStoreError);
    }
    expect(await open(Buffer.concat([sound, Buffer.from([0])]))).toBeInstanceOf(CorruptStoreError);
  });

  it('is refused with any bit of its trailer changed, and the file named', async () => {
    for (let at = sound.byteLength - 48; at < sound.byteLength; at++) {
      const changed = Buffer.from(sound);
      changed[at]! ^= 0x80;
      const error = await open(changed);
      expect(error, `byte ${at}`).toBeInstanceOf(CorruptStoreError);
      expect((error as Error).message).toMatch(/x\.ptar is no archive/);
    }
  });

  it('is refused with sections of no or too many bytes, whatever they add up to', async () => {
    const changed = Buffer.from(sound);
    changed.writeBigInt64LE(40_000n, sound.byteLength - 40);
    expect(await open(changed)).toBeInstanceOf(CorruptStoreError);
    expect(await open(randomBytes(100))).toBeInstanceOf(CorruptStoreError);
  });

  it('of a newer version is refused as such', async () => {
    const changed = Buffer.from(sound);
    changed.writeUInt32LE(0x20000, 8);
    expect(await open(changed)).toBeInstanceOf(UnsupportedError);
  });

  it('that is not there, or a directory, is no store: exit 66', async () => {
    const folder = join(temporaryFolder(cleanup), 'x.ptar');
    for (const place of ['/nowhere/x.ptar', folder]) {
      if (place === folder) mkdirSync(folder);
      const error = await failure(new PtarStore(place).readConfig());
      expect((error as UserError).exitCode).toBe(exitCodes.noStore);
    }
  });

  it('does not let reads of its packfile run into the state behind it', async () => {
    const store = new PtarStore(storePath('ptar-plain', 'archive.ptar'));
    cleanup.add(() => store.close());
    await store.readPackfile(name(1), 36_226, new Uint8Array(1));
    expect(await failure(store.readPackfile(name(1), 36_226, new Uint8Array(2)))).toBeInstanceOf(CorruptStoreError);
  });
});
