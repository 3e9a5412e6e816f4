/** Streams of `plakar cat`: what they serve, in which order, and how they end. */
import { describe, expect, test } from 'vitest';
import { StoreUnavailableError } from '../../../src/core/errors.ts';
import { MiB } from '../../../src/core/units.ts';
import { fakeFile, fakeLongFile, fakeSnapshotId, testDecoder } from '../../support/fake-plakar.ts';
import { errorOf, leave, plakarCatStores, small } from '../../support/plakar-cat-store.ts';

const setUp = plakarCatStores();

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
  /** One place for streams, which a long file has whose first chunk nobody waits for any more. */
  async function holdTheOnlyPlace() {
    const { fake, store } = await setUp({ concurrency: 1 });
    const [long, other] = [fakeLongFile('/long', 4, 1000), fakeLongFile('/other', 2, MiB)];
    const head = store.get(long.chunk(0));
    const first = await fake.next();
    await first.write(long.bytesOf(0));
    await head;
    return { fake, store, long, other, first };
  }

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
    const { fake, store, long, other, first } = await holdTheOnlyPlace();
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
    const { fake, store, long, other, first } = await holdTheOnlyPlace();
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
