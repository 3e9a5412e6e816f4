import { afterEach, describe, expect, test, vi } from 'vitest';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { MiB } from '../../../src/core/units.ts';
import { PlakarCatChunkStore } from '../../../src/source/plakar-cat-chunk-store.ts';
import type { PlakarCatOptions } from '../../../src/source/plakar-cat-options.ts';
import {
  type FakeFile,
  FakePlakar,
  fakeFile,
  fakeLongFile,
  fakeSnapshotId,
  LogRecorder,
  testDecoder,
} from '../../support/fake-plakar.ts';
import { Cleanup, temporaryFolder } from '../../support/fixtures.ts';

// The store is closed before the fake, whose children it ends.
const cleanup = new Cleanup();
afterEach(() => {
  vi.useRealTimers();
  return cleanup.run();
});

async function setUp({
  bytesMax,
  ...options
}: Partial<Omit<PlakarCatOptions, 'plakar' | 'spool'>> & { bytesMax?: number } = {}) {
  const fake = await FakePlakar.start(cleanup);
  const log = new LogRecorder();
  const clock = { nowMs: 0 };
  const store = new PlakarCatChunkStore({
    plakar: { command: fake.command, location: '/the/store', passphrase: 'secret word' },
    decoder: testDecoder,
    log,
    spool: { directory: temporaryFolder(cleanup), bytesMax },
    killGraceMs: 20_000,
    retryPauseMs: 1000,
    now: () => clock.nowMs,
    ...options,
  });
  cleanup.add(() => store.close());
  return { fake, store, log, clock };
}

/** The error a promise rejects with; a promise that resolves fails the test. */
async function errorOf(promise: Promise<unknown>): Promise<Error> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(Error);
  return outcome as Error;
}

/** Reads still being waited for when a test ends are rejected by close(). */
function leave(promise: Promise<unknown>): void {
  promise.catch(() => undefined);
}

/** From now on time passes only as told. To be called before anything is read. */
function stopTime() {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  return {
    /** Lets time pass once somebody waits for it, and what has happened is dealt with. */
    async pass(ms: number): Promise<void> {
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      await turnsUntil(() => vi.getTimerCount() > 0);
      vi.advanceTimersByTime(ms);
    },
  };
}

async function turnsUntil(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate);
}

const small = (name: string) => fakeFile(`/${name}`, [`content of ${name}`]);

describe('a stream', () => {
  test('is called with snapshot and path, quietly, with the passphrase out of sight', async () => {
    const { fake, store } = await setUp();
    const file = small('a');
    const got = store.get(file.chunk(0));
    const child = await fake.next();
    expect(child.args).toEqual(['-quiet', 'at', '/the/store', 'cat', `${fakeSnapshotId}:/a`]);
    expect(child.passphrase).toBe('secret word');
    await child.finish(file.content);
    expect(await got).toEqual(file.content);
  });

  test('serves many readers of one file from one process, each chunk as soon as it has passed', async () => {
    const { fake, store } = await setUp();
    const file = fakeLongFile('/long', 5, 1000);
    const reads = [3, 0, 4, 1, 1, 2].map((index) => store.get(file.chunk(index)));
    const child = await fake.next();
    await child.write(file.bytesOf(0));
    expect(await reads[1]).toEqual(file.bytesOf(0));
    await child.write(Buffer.concat([file.bytesOf(1), file.bytesOf(2), file.bytesOf(3)]));
    expect(await reads[3]).toEqual(file.bytesOf(1));
    expect(await reads[0]).toEqual(file.bytesOf(3));
    await child.finish(file.bytesOf(4));
    await Promise.all(reads);
    expect(fake.children).toHaveLength(1);
    expect(store.counters).toMatchObject({
      storeRequests: 1,
      storeBytes: 5000,
      decodedBytes: 5000,
      chunksFetched: 5,
      chunksFetchedTwice: 0,
    });
  });

  test('goes on to the end of the file by itself, and what passed is never asked for again', async () => {
    const { fake, store } = await setUp();
    const file = fakeLongFile('/long', 20, 1000);
    fake.serve([file]);
    await store.get(file.chunk(0));
    // The last chunk is handed out when the process has ended.
    await store.get(file.chunk(19));
    for (const index of [7, 0, 19, 3, 7, 12]) expect(await store.get(file.chunk(index))).toEqual(file.bytesOf(index));
    expect(fake.children).toHaveLength(1);
    expect(store.chunksFromSpool).toBe(6);
  });

  test('finds chunks whose bytes come in pieces of any size', async () => {
    const { fake, store } = await setUp();
    const file = fakeFile('/odd', ['x', 'yy', '', 'zzz'.repeat(50_000), 'end']);
    const reads = [0, 1, 3, 4].map((index) => store.get(file.chunk(index)));
    const child = await fake.next();
    for (const [from, to] of [
      [0, 2],
      [2, 3],
      [3, 4],
      [4, 100_000],
      [100_000, 150_005],
      [150_005, 150_006],
    ]) {
      await child.write(file.content.subarray(from, to));
    }
    await child.exit();
    expect(await Promise.all(reads)).toEqual([0, 1, 3, 4].map((index) => file.bytesOf(index)));
  });

  test('is not needed for an empty chunk', async () => {
    const { fake, store } = await setUp();
    expect(await store.get(fakeFile('/empty', ['']).chunk(0))).toHaveLength(0);
    expect(fake.children).toHaveLength(0);
  });

  test('serves a chunk to the readers of another file that has it too', async () => {
    const { fake, store } = await setUp({ concurrency: 1 });
    const first = fakeFile('/first', ['own part', 'shared part']);
    const second = fakeFile('/second', ['shared part', 'another part']);
    const reads = [store.get(first.chunk(0))];
    const child = await fake.next();
    reads.push(store.get(second.chunk(0)));
    await child.finish(first.content);
    await Promise.all(reads);
    expect(await store.get(second.chunk(0))).toEqual(second.bytesOf(0));
    expect(fake.children).toHaveLength(1);
  });

  test('is not read faster than chunks are kept: a child that is ahead blocks', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const decoder = {
      ...testDecoder,
      verify: (plain: Uint8Array, mac: Uint8Array) => held.then(() => testDecoder.verify(plain, mac)),
    };
    const { fake, store } = await setUp({ decoder });
    const file = fakeLongFile('/long', 40, 256 * 1024);
    const got = store.get(file.chunk(39));
    const child = await fake.next();
    let written = false;
    const writing = child.write(file.content).then(() => {
      written = true;
    });
    // Two chunks are taken while the check of the first one is held, then no more.
    await expect.poll(() => store.counters.storeBytes).toBeGreaterThan(256 * 1024);
    expect(written).toBe(false);
    expect(store.counters.storeBytes).toBeLessThan(2 * MiB);
    release();
    await writing;
    await child.exit();
    expect(await got).toEqual(file.bytesOf(39));
  });
});

describe('the order of streams', () => {
  test('serves first who waited first', async () => {
    const { fake, store } = await setUp({ concurrency: 1 });
    const files = Array.from({ length: 4 }, (_, index) => fakeLongFile(`/file ${index}`, 2, MiB));
    const reads = files.map((file) => store.get(file.chunk(1)));
    for (const file of files) {
      const child = await fake.next();
      expect(child.operands).toEqual([file.operand]);
      await child.finish(file.content);
    }
    await Promise.all(reads);
  });

  test('keeps to the bound of processes', async () => {
    const { fake, store } = await setUp({ concurrency: 2 });
    const files = Array.from({ length: 6 }, (_, index) => fakeLongFile(`/file ${index}`, 2, MiB));
    const contents = new Map(files.map((file) => [file.operand, file.content]));
    const reads = files.map((file) => store.get(file.chunk(1)));
    for (let pair = 0; pair < 3; pair++) {
      const children = [await fake.next(), await fake.next()];
      await Promise.all(children.map((child) => child.finish(contents.get(child.operands[0]!)!)));
    }
    await Promise.all(reads);
    expect(fake.children).toHaveLength(6);
    expect(fake.aliveMax).toBe(2);
  });

  test('a short file gets by two long ones: one place is kept free of these', async () => {
    const { fake, store } = await setUp({ concurrency: 2 });
    const [one, two] = [fakeLongFile('/one', 40, MiB), fakeLongFile('/two', 40, MiB)];
    const file = small('short');
    leave(store.get(one.chunk(39)));
    leave(store.get(two.chunk(39)));
    const first = await fake.next();
    expect(first.operands).toEqual([one.operand]);
    const got = store.get(file.chunk(0));
    const second = await fake.next();
    expect(second.operands).toEqual([file.operand]);
    await second.finish(file.content);
    expect(await got).toEqual(file.content);
    expect(fake.startsOf(two)).toBe(0);
  });

  test('a stream nobody waits for steps aside, and goes on where it stood', async () => {
    const { fake, store } = await setUp({ concurrency: 1 });
    const [long, other] = [fakeLongFile('/long', 4, 1000), fakeLongFile('/other', 2, MiB)];
    const head = store.get(long.chunk(0));
    const first = await fake.next();
    await first.write(long.bytesOf(0));
    await head;
    const got = store.get(other.chunk(1));
    const second = await fake.next();
    expect(second.operands).toEqual([other.operand]);
    // The first one's output is not taken now; it is once the second one has ended.
    await first.write(Buffer.concat([long.bytesOf(1), long.bytesOf(2)]));
    await second.finish(other.content);
    await got;
    await first.finish(long.bytesOf(3));
    expect(await store.get(long.chunk(3))).toEqual(long.bytesOf(3));
    expect(fake.startsOf(long)).toBe(1);
  });

  test('a parked stream is taken up again for a reader', async () => {
    const { fake, store } = await setUp({ concurrency: 1 });
    const [long, other] = [fakeLongFile('/long', 4, 1000), fakeLongFile('/other', 2, MiB)];
    const head = store.get(long.chunk(0));
    const first = await fake.next();
    await first.write(long.bytesOf(0));
    await head;
    const otherHead = store.get(other.chunk(0));
    const second = await fake.next();
    await second.write(other.bytesOf(0));
    await otherHead;
    const tail = store.get(long.chunk(2));
    await first.write(Buffer.concat([long.bytesOf(1), long.bytesOf(2)]));
    expect(await tail).toEqual(long.bytesOf(2));
    expect(fake.children).toHaveLength(2);
  });

  test('short files that wait together share a process', async () => {
    const { fake, store } = await setUp();
    const files = Array.from({ length: 20 }, (_, index) => small(`file ${index}`));
    fake.serve(files);
    const contents = await Promise.all(files.map((file) => store.get(file.chunk(0))));
    expect(contents).toEqual(files.map(({ content }) => content));
    expect(fake.children).toHaveLength(1);
  });
});

describe('bytes that are wrong', () => {
  /** Answers all streams with `respond`; the error of a read of `file`'s chunk. */
  async function failing(file: FakeFile, index: number, output: string | Uint8Array, code = 0, complaint?: string) {
    const parts = await setUp();
    const got = errorOf(parts.store.get(file.chunk(index)));
    for (let attempt = 0; attempt < 2; attempt++) {
      const child = await parts.fake.next();
      if (complaint !== undefined) await child.complain(complaint);
      void child.write(output);
      await child.exit(code);
    }
    return { ...parts, error: await got };
  }

  test('a wrong byte is tried once more, then named', async () => {
    const file = fakeFile('/dir/file', ['first', 'second']);
    const { error, log, fake } = await failing(file, 1, 'firstsecoNd');
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(error.message).toBe('Snapshot 6300a0a8, file /dir/file, chunk 1: its bytes do not match their MAC');
    expect(log.messages('warn')).toHaveLength(1);
    expect(fake.children).toHaveLength(2);
  });

  test('a wrong byte that is right the second time is served', async () => {
    const { fake, store } = await setUp();
    const file = fakeFile('/file', ['first', 'second']);
    const got = store.get(file.chunk(1));
    await (await fake.next()).finish(Buffer.from('firstsecoNd'));
    await (await fake.next()).finish(file.content);
    expect(await got).toEqual(file.bytesOf(1));
  });

  test('plakar’s welcome is not skipped over', async () => {
    const file = small('file');
    const { error } = await failing(file, 0, `Welcome to plakar !\n\nBy default\n${file.content}`);
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(error.message).toContain('plakar says: "Welcome to plakar !"');
  });

  test('an error on standard output is quoted, a file’s content is not', async () => {
    const missing = await failing(small('file'), 0, 'plakar: errors occurred\n', 1);
    expect(missing.error.message).toContain('plakar: errors occurred');
    const garbage = await failing(small('file'), 0, 'somebody’s private file', 0);
    expect(garbage.error.message).not.toContain('private');
  });

  test('too little', async () => {
    const file = fakeFile('/file', ['first', 'second']);
    const { error } = await failing(file, 1, 'firstsec');
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(error.message).toContain('chunk 1: 3 of its 6 bytes are missing');
  });

  test('too much: the last chunk is not served either, what came before is', async () => {
    const file = fakeFile('/file', ['first', 'second']);
    const { error, store } = await failing(file, 1, 'firstsecond!');
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(error.message).toContain('chunk 1: plakar cat gives more bytes than the file has');
    expect(await store.get(file.chunk(0))).toEqual(file.bytesOf(0));
  });

  test('an error text behind the last byte', async () => {
    const file = small('file');
    const { error } = await failing(file, 0, `${file.content}plakar: errors occurred\n`, 1, 'error: cat: it broke\n');
    expect(error).toBeInstanceOf(StoreUnavailableError);
    expect(error.message).toContain('exit code 1 - plakar says: "error: cat: it broke"');
  });

  test('a chunk damaged in the spool is streamed again', async () => {
    let flip = false;
    const decoder = {
      ...testDecoder,
      verify: (plain: Uint8Array, mac: Uint8Array) =>
        flip ? Promise.reject(new CorruptStoreError('as if damaged')) : testDecoder.verify(plain, mac),
    };
    const { fake, store, log } = await setUp({ decoder });
    const file = small('file');
    const first = store.get(file.chunk(0));
    await (await fake.next()).finish(file.content);
    await first;
    flip = true;
    const again = store.get(file.chunk(0));
    const child = await fake.next();
    flip = false;
    await child.finish(file.content);
    expect(await again).toEqual(file.content);
    expect(log.messages('warn')).toHaveLength(1);
  });
});

describe('a child that fails', () => {
  test('midway: what passed stays good, the rest is tried once more', async () => {
    const { fake, store } = await setUp();
    const file = fakeLongFile('/long', 4, 1000);
    const reads = [0, 1, 2, 3].map((index) => store.get(file.chunk(index)));
    const late = [errorOf(reads[2]!), errorOf(reads[3]!)];
    const first = await fake.next();
    await first.write(file.content.subarray(0, 2500));
    await Promise.all(reads.slice(0, 2));
    process.kill(first.pid, 'SIGKILL');
    const second = await fake.next();
    await second.write(file.content.subarray(0, 2500));
    process.kill(second.pid, 'SIGKILL');
    const [error] = await Promise.all(late);
    expect(error).toBeInstanceOf(StoreUnavailableError);
    expect(error!.message).toBe(
      'Snapshot 6300a0a8, file /long, chunk 2: 500 of its 1000 bytes are missing; it was ended by SIGKILL',
    );
    expect(await store.get(file.chunk(1))).toEqual(file.bytesOf(1));
    expect(fake.children).toHaveLength(2);
  });

  test('is left alone for a pause that doubles; then a new read starts a new stream', async () => {
    const { fake, store, clock } = await setUp();
    const file = fakeFile('/file', ['first', 'second', 'third']);
    const fail = async () => {
      const failed = errorOf(store.get(file.chunk(1)));
      for (let attempt = 0; attempt < 2; attempt++) {
        const child = await fake.next();
        await child.complain('error: cat: it broke\n');
        await child.exit(1);
      }
      return failed;
    };
    const error = await fail();
    clock.nowMs = 999;
    expect(await errorOf(store.get(file.chunk(1)))).toBe(error);
    expect(await errorOf(store.get(file.chunk(2)))).toBe(error);
    expect(fake.children).toHaveLength(2);
    clock.nowMs = 1000;
    await fail();
    clock.nowMs = 2999;
    await errorOf(store.get(file.chunk(1)));
    expect(fake.children).toHaveLength(4);
    clock.nowMs = 3000;
    const got = store.get(file.chunk(1));
    await (await fake.next()).finish(file.content);
    expect(await got).toEqual(file.bytesOf(1));
  });

  test('with what would befall any file, fails all that wait, at once', async () => {
    const { fake, store, clock } = await setUp({ concurrency: 1 });
    const files = Array.from({ length: 5 }, (_, index) => fakeLongFile(`/file ${index}`, 2, MiB));
    const failures = files.map((file) => errorOf(store.get(file.chunk(0))));
    const child = await fake.next();
    await child.complain('plakar: failed to unlock repository, secret word\n');
    await child.exit(77);
    for (const failure of failures) {
      const error = await failure;
      expect(error).toBeInstanceOf(StoreUnavailableError);
      expect(error.message).toContain('wrong or missing passphrase');
      expect(error.message).toContain('failed to unlock repository, ***');
    }
    await errorOf(store.get(small('other').chunk(0)));
    expect(fake.children).toHaveLength(1);
    clock.nowMs = 1000;
    leave(store.get(small('other').chunk(0)));
    await fake.next();
  });

  test('is blamed alone, when it is one file of several in a process', async () => {
    const { fake, store } = await setUp({ concurrency: 1 });
    const [good, missing, behind] = ['good', 'missing', 'behind'].map(small) as [FakeFile, FakeFile, FakeFile];
    const reads = [good, missing, behind].map((file) => store.get(file.chunk(0)));
    const failed = errorOf(reads[1]!);
    const complaint = 'error: cat: /missing: no such file\n';
    const together = await fake.next();
    expect(together.operands).toHaveLength(3);
    await together.complain(complaint);
    await together.write(Buffer.concat([good.content, behind.content]));
    void together.write('plakar: errors occurred\n');
    await together.exit(1);
    for (let attempt = 0; attempt < 2; attempt++) {
      const alone = await fake.next();
      expect(alone.operands).toHaveLength(1);
      if (alone.operands[0] === behind.operand) await alone.finish(behind.content);
      else {
        await alone.complain(complaint);
        await alone.exit(1);
      }
    }
    expect(await reads[0]).toEqual(good.content);
    expect(await reads[2]).toEqual(behind.content);
    expect((await failed).message).toContain('file /missing, chunk 0');
    expect((await failed).message).toContain('/missing: no such file');
    expect(fake.children).toHaveLength(3);
  });

  test('by hanging, is given up after the time-out and not tried again at once', async () => {
    const time = stopTime();
    const { fake, store } = await setUp({ idleTimeoutMs: 60_000, killGraceMs: 2000 });
    const file = fakeLongFile('/long', 3, 1000);
    const head = store.get(file.chunk(0));
    const failed = errorOf(store.get(file.chunk(2)));
    const child = await fake.next();
    await child.ignoreTermination();
    await child.write(file.bytesOf(0));
    expect(await head).toEqual(file.bytesOf(0));
    await time.pass(60_000);
    await child.terminated;
    await time.pass(2000);
    const error = await failed;
    expect(error).toBeInstanceOf(StoreUnavailableError);
    expect(error.message).toContain('chunk 1: plakar cat gave nothing for 60 s');
    await child.gone;
    expect(fake.children).toHaveLength(1);
  });

  test('by hanging after the last byte, too', async () => {
    const time = stopTime();
    const { fake, store } = await setUp({ idleTimeoutMs: 60_000 });
    const file = small('file');
    const failed = errorOf(store.get(file.chunk(0)));
    const child = await fake.next();
    await child.write(file.content);
    await child.closeOutput();
    await turnsUntil(() => store.counters.decodedBytes === file.content.byteLength);
    await time.pass(60_000);
    expect((await failed).message).toContain('plakar cat gave nothing for 60 s');
    await child.gone;
  });
});

describe('when nothing more is kept', () => {
  /** The limit is known to be reached once a chunk was refused. */
  async function fillSpool(fake: FakePlakar, store: PlakarCatChunkStore): Promise<void> {
    const filler = small('filler');
    const filled = store.get(filler.chunk(0));
    await (await fake.next()).finish(filler.content);
    await filled;
  }

  test('a stream waits for its reader, and starts over only for what has passed', async () => {
    const { fake, store, log } = await setUp({ bytesMax: 1000 });
    const file = fakeLongFile('/long', 6, 1000);
    fake.serve([file]);
    for (const index of [0, 1, 2, 3, 4, 5]) expect(await store.get(file.chunk(index))).toEqual(file.bytesOf(index));
    expect(fake.children).toHaveLength(1);
    expect(await store.get(file.chunk(0))).toEqual(file.bytesOf(0));
    expect(fake.children).toHaveLength(1);
    expect(await store.get(file.chunk(3))).toEqual(file.bytesOf(3));
    expect(fake.children).toHaveLength(2);
    // Behind the second stream, which stands at chunk 4 or 5.
    expect(await store.get(file.chunk(1))).toEqual(file.bytesOf(1));
    expect(fake.children).toHaveLength(3);
    expect(log.messages('warn')).toHaveLength(1);
  });

  test('no chunk passes before it is asked for, however slow the reader', async () => {
    const { fake, store } = await setUp({ bytesMax: 0 });
    await fillSpool(fake, store);
    const file = fakeLongFile('/long', 4, 1000);
    const head = store.get(file.chunk(0));
    const child = await fake.next();
    await child.write(file.content);
    await head;
    for (const index of [1, 2]) {
      // All output is there: what would be read ahead is read in these turns of the event loop.
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      expect(store.counters.chunksFetched).toBe(1 + index);
      expect(await store.get(file.chunk(index))).toEqual(file.bytesOf(index));
    }
    expect(fake.startsOf(file)).toBe(1);
  });

  test('a stream whose reader does not come back is ended', async () => {
    const time = stopTime();
    const { fake, store } = await setUp({ bytesMax: 0, idleTimeoutMs: 60_000 });
    await fillSpool(fake, store);
    const file = fakeLongFile('/long', 6, 1000);
    const got = store.get(file.chunk(0));
    const child = await fake.next();
    await child.write(file.content.subarray(0, 3000));
    await got;
    await time.pass(60_000);
    await child.gone;
    vi.useRealTimers();
    const again = store.get(file.chunk(0));
    await (await fake.next()).finish(file.content);
    expect(await again).toEqual(file.bytesOf(0));
  });
});

describe('close', () => {
  test('ends children, also those that ignore SIGTERM, and rejects who still waits', async () => {
    const { fake, store } = await setUp({ killGraceMs: 50 });
    const [one, two] = [fakeLongFile('/one', 3, 1000), fakeLongFile('/two', 3, MiB)];
    const failures = [errorOf(store.get(one.chunk(2))), errorOf(store.get(two.chunk(2)))];
    const children = [await fake.next(), await fake.next()];
    await children[1]!.ignoreTermination();
    await store.close();
    await Promise.all(children.map(({ gone }) => gone));
    for (const failure of failures) expect(await failure).toBeInstanceOf(StoreUnavailableError);
    expect(await errorOf(store.get(one.chunk(0)))).toBeInstanceOf(StoreUnavailableError);
    await store.close();
    expect(fake.children).toHaveLength(2);
  });

  test('ends a parked stream', async () => {
    const { fake, store } = await setUp({ bytesMax: 0 });
    const file = fakeLongFile('/long', 6, 1000);
    const got = store.get(file.chunk(0));
    const child = await fake.next();
    await child.write(file.content);
    await got;
    await store.close();
    await child.gone;
  });
});
