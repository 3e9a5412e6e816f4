/** Bytes of `plakar cat` that are wrong, and children that fail. */
import { describe, expect, test } from 'vitest';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { MiB } from '../../../src/core/units.ts';
import { type FakeFile, fakeFile, fakeLongFile, testDecoder } from '../../support/fake-plakar.ts';
import { errorOf, leave, plakarCatStores, small, stopTime, turnsUntil } from '../../support/plakar-cat-store.ts';

const setUp = plakarCatStores();

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
