import { describe, expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { ReadAheadStore } from '../../../src/kloset/read-ahead-store.ts';
import { TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { FaultStore, MemoryStore } from '../../support/fault-store.ts';

const packfile = Buffer.from(Array.from({ length: 1000 }, (_, at) => (at * 7) & 0xff));
const content = { config: packfile, states: new Map(), packfiles: new Map([['id', packfile]]), namesPackfiles: true };

function setUp(next: ConstructorParameters<typeof FaultStore>[1] = () => undefined) {
  const faults = new FaultStore(new MemoryStore(content), next);
  const store = new ReadAheadStore(faults, { windowBytes: 128, readBytesMax: 100, cacheBytesMax: 512 });
  const read = async (offset: number, length: number) => {
    const target = Buffer.alloc(length);
    await store.readPackfile('id', offset, target);
    return target;
  };
  return { faults, store, read };
}

const slice = (offset: number, length: number) => packfile.subarray(offset, offset + length);

describe('ReadAheadStore', () => {
  it('serves what lies side by side from one request, also while that is under way', async () => {
    const { faults, read } = setUp();
    const [first, second] = await Promise.all([read(130, 20), read(150, 40)]);
    expect([first, second, await read(200, 56)]).toEqual([slice(130, 20), slice(150, 40), slice(200, 56)]);
    expect(faults.calls).toEqual(['packfile id 128..128']);
  });

  it('joins the windows that a range touches', async () => {
    const { faults, read } = setUp();
    expect(await read(250, 20)).toEqual(slice(250, 20));
    expect(faults.calls).toEqual(['packfile id 128..128', 'packfile id 256..128']);
    expect(await read(260, 100)).toEqual(slice(260, 100));
    expect(faults.calls).toHaveLength(2);
  });

  it('fetches what is large alone', async () => {
    const { faults, read } = setUp();
    expect(await read(5, 101)).toEqual(slice(5, 101));
    expect(faults.calls).toEqual(['packfile id 5+101']);
  });

  it('reads up to the end of a packfile; beyond it the store has the last word', async () => {
    const { faults, read } = setUp();
    expect(await read(990, 10)).toEqual(slice(990, 10));
    await expect(read(995, 10)).rejects.toBeInstanceOf(CorruptStoreError);
    await expect(read(5000, 1)).rejects.toBeInstanceOf(CorruptStoreError);
    expect(faults.calls).toEqual([
      'packfile id 896..128',
      'packfile id 995+10',
      'packfile id 4992..128',
      'packfile id 5000+1',
    ]);
  });

  it('fetches anew, and alone, what is asked for a second time: the first may have been damaged on the way', async () => {
    const { faults, read } = setUp();
    await read(10, 20);
    await read(30, 20);
    expect(await read(10, 20)).toEqual(slice(10, 20));
    expect(faults.calls).toEqual(['packfile id 0..128', 'packfile id 10+20']);
    await read(30, 20);
    expect(faults.calls.at(-1)).toBe('packfile id 0..128');
  });

  it('hands a failure to all that wait for it, and forgets it', async () => {
    const failures = [new StoreUnavailableError('gone')];
    const { faults, read } = setUp(() => failures.shift());
    const outcomes = await Promise.allSettled([read(0, 5), read(5, 5)]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['rejected', 'rejected']);
    expect(await read(0, 5)).toEqual(slice(0, 5));
    expect(faults.calls).toHaveLength(2);
  });

  it('keeps no more windows than it may', async () => {
    const { faults, read } = setUp();
    for (const offset of [0, 128, 256, 384, 512, 1]) await read(offset, 5);
    expect(faults.calls.at(-1)).toBe('packfile id 0..128');
    await read(513, 5);
    expect(faults.calls).toHaveLength(6);
  });

  it('lets one reader go while others wait', async () => {
    let answer = (): void => undefined;
    const answered = new Promise<undefined>((resolve) => {
      answer = () => resolve(undefined);
    });
    const { store, read } = setUp(() => answered);
    const stop = new AbortController();
    const target = Buffer.alloc(5);
    const leaving = store.readPackfile('id', 0, target, stop);
    const staying = read(5, 5);
    stop.abort(new TransientStoreError('nobody waits'));
    await expect(leaving).rejects.toThrow('nobody waits');
    answer();
    expect(await staying).toEqual(slice(5, 5));
    expect(target).toEqual(Buffer.alloc(5));
  });
});
