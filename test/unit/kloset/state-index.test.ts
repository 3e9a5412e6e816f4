/** A store that changes while it is being read: states that come, move, mark and are damaged (kloset-format 7.3). */
import { describe, expect, it } from 'vitest';
import { newReadCounters } from '../../../src/core/counters.ts';
import { CorruptStoreError, StoreUnavailableError } from '../../../src/core/errors.ts';
import { toHex } from '../../../src/core/mac.ts';
import {
  colouredRecord,
  locationRecord,
  packfileRecord,
  removeRecord,
  resourceTypes,
  stateRecords,
  versions,
} from '../../../src/kloset/format.ts';
import { MissingResourceError, TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { Repository, type RepositoryOptions } from '../../../src/kloset/repository.ts';
import { recordingLog } from '../../support/recording-log.ts';
import {
  envelope,
  idOf,
  macOf,
  type StateParts,
  StoreWriter,
  stateBytes,
  stateRecord,
} from '../../support/store-writer.ts';

const { chunk, packfile, snapshot, state: stateType } = resourceTypes;
const content = Buffer.from('what the chunk holds');
const mac = macOf(content);

const keys = { passphrase: () => expect.unreachable(), deriveKey: () => expect.unreachable() };
const open = (store: StoreWriter, options: Partial<RepositoryOptions> = {}) =>
  Repository.open(store, { counters: newReadCounters(), keys, ...options });

function addState(store: StoreWriter, number: number, parts: StateParts): string {
  const id = toHex(idOf(number));
  store.states.set(id, envelope(stateType, versions.v1_1_0, stateBytes(parts)));
  return id;
}
const location = (type: number, blobMac: Uint8Array, inPackfile: number, offset = 0) =>
  stateRecord(
    stateRecords.location,
    locationRecord.encode({
      blobType: type,
      blobMac,
      packfileMac: idOf(inPackfile),
      offset,
      length: content.byteLength,
    }),
  );
const listed = (number: number) =>
  stateRecord(stateRecords.packfile, packfileRecord.encode({ packfileMac: idOf(number) }));
const marked = (type: number, id: Uint8Array, whenMs = 0) =>
  stateRecord(
    stateRecords.coloured,
    colouredRecord.encode({ resourceType: type, mac: id, whenNanoseconds: BigInt(whenMs) * 1_000_000n }),
  );
const unlisted = (number: number) =>
  stateRecord(
    stateRecords.remove,
    removeRecord.encode({
      recordType: stateRecords.packfile,
      blobType: 0,
      blobMac: idOf(0),
      packfileMac: idOf(number),
    }),
  );

/** A store whose one chunk lies in packfile 1; a packfile that is taken away is reported as stores do. */
async function storeWithChunk(): Promise<StoreWriter> {
  const store = new StoreWriter();
  store.blob(chunk, content);
  await store.finish();
  const read = store.readPackfile.bind(store);
  store.readPackfile = async (id, offset, target) => {
    if (!store.packfiles.has(id)) throw new MissingResourceError(`packfile ${id} is not there`);
    return read(id, offset, target);
  };
  return store;
}

/** As maintenance does it: the blobs of packfile 1 go to packfile 2, and the first is taken away. */
function moveToSecondPackfile(store: StoreWriter, timestamp = 5n): void {
  const first = store.packfiles.get(toHex(idOf(1)))!;
  store.packfiles.set(toHex(idOf(2)), first);
  store.packfiles.delete(toHex(idOf(1)));
  addState(store, 2000, { timestamp, records: [unlisted(1), location(chunk, mac, 2), listed(2)] });
}

describe('an open store', () => {
  it.each([
    ['newer than all before', 5n],
    ['as old as another', 0n],
  ])(
    'finds where maintenance moved a blob as soon as its packfile is missing: a state %s',
    async (_what, timestamp) => {
      const store = await storeWithChunk();
      const repository = await open(store, { clock: patientClock() });
      moveToSecondPackfile(store, timestamp);
      let changes = 0;
      repository.onChange(() => changes++);
      const got = await Promise.all([1, 2, 3].map(() => repository.readBlob({ type: chunk, mac })));
      expect(got.map((plain) => Buffer.from(plain))).toEqual([content, content, content]);
      expect(changes).toBe(1);
    },
  );

  it('does not list its states for each of many reads that miss something', async () => {
    const store = await storeWithChunk();
    const repository = await open(store, { clock: patientClock() });
    store.packfiles.clear();
    let listings = 0;
    const list = store.list.bind(store);
    store.list = async (kind) => {
      listings++;
      return list(kind);
    };
    for (let i = 0; i < 20; i++) {
      await expect(repository.readBlob({ type: chunk, mac })).rejects.toThrow(`packfile ${toHex(idOf(1))}`);
    }
    expect(listings).toBe(1);
  });

  it('shows new snapshots, and deleted ones no more, with what is known of their end', async () => {
    const store = await storeWithChunk();
    const repository = await open(store);
    const id = idOf(77);
    addState(store, 2000, { timestamp: 1n, records: [location(snapshot, id, 1)] });
    expect(repository.snapshots()).toEqual([]);
    expect(await repository.refresh()).toBe(true);
    expect(repository.snapshots().map(toHex)).toEqual([toHex(id)]);
    expect(await repository.deletionOf(toHex(id))).toBeUndefined();

    addState(store, 2001, { timestamp: 2n, records: [marked(snapshot, id, 5000), marked(packfile, idOf(9), 4000)] });
    await repository.refresh();
    expect(repository.snapshots()).toEqual([]);
    const deletedAtMs = 5000;
    const deletion = { deletedAtMs, markedAtMs: undefined, isTakenAway: false };
    expect(await repository.deletionOf(toHex(id))).toEqual(deletion);

    addState(store, 2002, {
      timestamp: 3n,
      records: [marked(packfile, idOf(1), 7000), marked(packfile, idOf(8), 8000)],
    });
    await repository.refresh();
    expect(await repository.deletionOf(toHex(id))).toEqual({ ...deletion, markedAtMs: 7000 });
    // Its bytes are there until the grace period ends.
    expect(Buffer.from(await repository.readBlob({ type: chunk, mac }))).toEqual(content);

    addState(store, 2003, { timestamp: 4n, records: [unlisted(1)] });
    await repository.refresh();
    expect(await repository.deletionOf(toHex(id))).toMatchObject({ deletedAtMs, isTakenAway: true });
    expect(await repository.refresh()).toBe(false);
  });

  it('keeps its index when the states cannot be listed, or none are there any more', async () => {
    const store = await storeWithChunk();
    const repository = await open(store);
    const saved = [...store.states];
    store.states.clear();
    await expect(repository.refresh()).rejects.toBeInstanceOf(StoreUnavailableError);
    for (const [id, bytes] of saved) store.states.set(id, bytes);
    const list = store.list.bind(store);
    store.list = () => Promise.reject(new TransientStoreError('away'));
    await expect(repository.refresh()).rejects.toThrow('away');
    store.list = list;
    expect(Buffer.from(await repository.readBlob({ type: chunk, mac }))).toEqual(content);
    expect(await repository.refresh()).toBe(false);
  });

  it('lists again if a state is taken away while it opens, and gives up on one that is listed for ever', async () => {
    const store = await storeWithChunk();
    const read = store.readState.bind(store);
    const ghost = toHex(idOf(3000));
    const list = store.list.bind(store);
    let listings = 0;
    store.list = async (kind) => (++listings < 2 ? [...(await list(kind)), ghost] : list(kind));
    store.readState = async (id) => {
      if (id === ghost) throw new MissingResourceError('gone');
      return read(id);
    };
    await open(store);
    expect(listings).toBe(2);
    store.list = async (kind) => [...(await list(kind)), ghost];
    await expect(open(store)).rejects.toThrow(ghost);
  });
});

describe('a damaged state', () => {
  const damage = (store: StoreWriter, id: string, at: number) => {
    const bytes = Buffer.from(store.states.get(id)!);
    bytes[at]! ^= 1;
    store.states.set(id, bytes);
  };

  it.each([8, 13, 40])('is refused and named, whichever byte it is: %d', async (at) => {
    const store = await storeWithChunk();
    const id = addState(store, 2000, { records: [listed(5)] });
    damage(store, id, at);
    const error = await open(store).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(CorruptStoreError);
    expect(error).toMatchObject({ details: { state: id } });
    expect((error as Error).message).toMatch(new RegExp(`^State ${id} is .*--ignore-damaged-states`));
  });

  it.each([
    ['a wrong byte', (store: StoreWriter, id: string) => damage(store, id, 40)],
    [
      'a record of the wrong length',
      (store: StoreWriter) => addState(store, 2000, { records: [stateRecord(stateRecords.packfile, Buffer.alloc(3))] }),
    ],
  ])('with %s is left out if that is wished, with a warning of what that means', async (_what, spoil) => {
    const store = await storeWithChunk();
    const id = addState(store, 2000, { records: [location(snapshot, idOf(77), 1)] });
    spoil(store, id);
    const { log, lines } = recordingLog();
    const repository = await open(store, { ignoreDamaged: true, log });
    expect(repository.snapshots()).toEqual([]);
    expect([...repository.damagedStates.keys()]).toEqual([id]);
    expect(Buffer.from(await repository.readBlob({ type: chunk, mac }))).toEqual(content);
    const warnings = lines.filter(({ level }) => level === 'warn');
    expect(warnings).toHaveLength(1);
    expect(warnings[0]!.message).toMatch(new RegExp(`State ${id} .* left out: snapshots and data that only it lists`));

    // Once it is repaired it counts.
    addState(store, 2000, { timestamp: 1n, records: [location(snapshot, idOf(77), 1)] });
    expect(await repository.refresh()).toBe(true);
    expect(repository.damagedStates.size).toBe(0);
    expect(repository.snapshots()).toHaveLength(1);
  });

  it('that comes while a store is open is left out, told once, and read again later', async () => {
    const store = await storeWithChunk();
    const { log, lines } = recordingLog();
    const repository = await open(store, { log });
    const id = addState(store, 2000, { timestamp: 1n, records: [location(snapshot, idOf(77), 1)] });
    damage(store, id, 40);
    expect(await repository.refresh()).toBe(false);
    expect(await repository.refresh()).toBe(false);
    expect([...repository.damagedStates.keys()]).toEqual([id]);
    expect(lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
    damage(store, id, 40);
    expect(await repository.refresh()).toBe(true);
    expect(repository.damagedStates.size).toBe(0);
    expect(repository.snapshots()).toHaveLength(1);
  });
});

/** Time passes between opening and the first read, and then stands still. */
function patientClock() {
  let asked = 0;
  return { now: () => (asked++ === 0 ? 0 : 1e6), after: () => () => undefined };
}
