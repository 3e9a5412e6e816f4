/** What every KlosetStore promises, wherever it reads from: compared byte by byte with the files of a fixture. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError } from '../../src/core/errors.ts';
import type { KlosetStore } from '../../src/kloset/store.ts';

/** What the store must give. */
export interface StoreContent {
  readonly config: Buffer;
  /** By id, ascending. The id of an archive's only state is the reader's invention. */
  readonly states: ReadonlyMap<string, Buffer>;
  /** By id, ascending: all that the index refers to. */
  readonly packfiles: ReadonlyMap<string, Buffer>;
  /** False where listings cannot name packfiles, and every id stands for the only one (archives). */
  readonly namesPackfiles: boolean;
}

export interface StoreSuite {
  readonly name: string;
  readonly content: StoreContent;
  /** A fresh store. Called once a test; the suite closes it. */
  open(): Promise<KlosetStore>;
}

const UNKNOWN_ID = '5'.repeat(64);

export function runStoreSuite({ name, content, open }: StoreSuite): void {
  describe(`${name} as a KlosetStore`, () => {
    let store: KlosetStore;
    const [packfileId, packfile] = [...content.packfiles].at(-1)!;

    beforeEach(async () => {
      store = await open();
    });
    afterEach(() => store.close());

    it('gives CONFIG', async () => {
      expect(Buffer.from(await store.readConfig()).equals(content.config)).toBe(true);
    });

    it('lists what it holds, ascending', async () => {
      await store.readConfig();
      expect(await store.list('states')).toEqual([...content.states.keys()]);
      expect(await store.list('packfiles')).toEqual(content.namesPackfiles ? [...content.packfiles.keys()] : []);
    });

    it('gives whole states, all at once', async () => {
      await store.readConfig();
      const states = await Promise.all((await store.list('states')).map((id) => store.readState(id)));
      expect(states.map((state) => Buffer.from(state).toString('hex'))).toEqual(
        [...content.states.values()].map((state) => state.toString('hex')),
      );
    });

    it.each([
      ['the first byte', 0, 1],
      ['the last byte', packfile.length - 1, 1],
      ['two bytes in the middle', packfile.length >> 1, 2],
      ['everything', 0, packfile.length],
      ['everything but both ends', 1, packfile.length - 2],
      ['the second half', packfile.length >> 1, packfile.length - (packfile.length >> 1)],
    ])('reads %s of a packfile', async (_what, offset, length) => {
      await store.readConfig();
      const target = new Uint8Array(length).fill(0xa5);
      await store.readPackfile(packfileId, offset, target);
      expect(Buffer.from(target).equals(packfile.subarray(offset, offset + length))).toBe(true);
    });

    it('fills exactly the view it is given, in shared memory too', async () => {
      await store.readConfig();
      for (const buffer of [new ArrayBuffer(300), new SharedArrayBuffer(300)]) {
        const all = new Uint8Array(buffer).fill(0xa5);
        await store.readPackfile(packfileId, 40, all.subarray(100, 200));
        const expected = Buffer.alloc(300, 0xa5);
        packfile.copy(expected, 100, 40, 140);
        expect(Buffer.from(all).equals(expected)).toBe(true);
      }
    });

    it.each([
      ['crosses the end by one byte', packfile.length - 9, 10],
      ['begins at the end', packfile.length, 1],
      ['lies far beyond the end', packfile.length + 1e6, 100],
    ])('says that a packfile ends before a range that %s', async (_what, offset, length) => {
      await store.readConfig();
      const reading = store.readPackfile(packfileId, offset, new Uint8Array(length));
      await expect(reading).rejects.toBeInstanceOf(CorruptStoreError);
      await expect(reading).rejects.toThrow(packfileId);
    });

    // Where every id stands for the only packfile, none is unknown.
    if (content.namesPackfiles) {
      it('says which resource it does not hold', async () => {
        await store.readConfig();
        const reading = store.readPackfile(UNKNOWN_ID, 0, new Uint8Array(10));
        await expect(reading).rejects.toBeInstanceOf(StoreUnavailableError);
        await expect(reading).rejects.toThrow(UNKNOWN_ID);
        const state = store.readState(UNKNOWN_ID);
        await expect(state).rejects.toBeInstanceOf(StoreUnavailableError);
        await expect(state).rejects.toThrow(UNKNOWN_ID);
        // And goes on reading.
        expect(Buffer.from(await store.readConfig()).equals(content.config)).toBe(true);
      });
    }

    it('reads many ranges at once, each as if it were alone', async () => {
      await store.readConfig();
      const ranges = manyRanges(content.packfiles, 300);
      await Promise.all(
        ranges.map(async ({ id, offset, length, expected }) => {
          const target = new Uint8Array(length);
          await store.readPackfile(id, offset, target);
          expect(Buffer.from(target).equals(expected), `${id} ${offset}+${length}`).toBe(true);
        }),
      );
    });

    it('can be closed twice, and settles what was under way', async () => {
      await store.readConfig();
      const expected = packfile.subarray(0, 1000);
      const target = new Uint8Array(expected.length);
      const reading = store.readPackfile(packfileId, 0, target).then(
        () => Buffer.from(target).equals(expected),
        (error: unknown) => error instanceof StoreUnavailableError,
      );
      await store.close();
      await store.close();
      expect(await reading).toBe(true);
    });
  });
}

interface ExpectedRange {
  readonly id: string;
  readonly offset: number;
  readonly length: number;
  readonly expected: Buffer;
}

/** Overlapping, touching and scattered ranges of all sizes, the same in every run. */
function manyRanges(packfiles: ReadonlyMap<string, Buffer>, count: number): ExpectedRange[] {
  const files = [...packfiles];
  let touching = 0;
  return Array.from({ length: count }, (_, index) => {
    const [id, file] = files[index % files.length]!;
    const length = Math.min(1 + ((index * 7919) % 6000), file.length);
    const isTouching = index % 3 === 0 && touching + length <= file.length;
    const offset = isTouching ? touching : (index * 104_729) % (file.length - length + 1);
    if (isTouching) touching += length;
    return { id, offset, length, expected: file.subarray(offset, offset + length) };
  });
}
