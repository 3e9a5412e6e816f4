import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { newReadCounters } from '../../../src/core/counters.ts';
import { toHex } from '../../../src/core/mac.ts';
import { createCodec } from '../../../src/kloset/codec/codec.ts';
import { deriveKey } from '../../../src/kloset/codec/key-derivation.ts';
import {
  colouredRecord,
  locationRecord,
  packfileRecord,
  removeRecord,
  resourceTypes,
  stateRecords,
  versions,
} from '../../../src/kloset/format.ts';
import { Repository } from '../../../src/kloset/repository.ts';
import { StateIndex } from '../../../src/kloset/state-index.ts';
import { cachedFiles, storeCache } from '../../support/cache.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { type Random, seededRandom } from '../../support/overlay-random.ts';
import { envelope, idOf, type StateParts, StoreWriter, stateBytes, stateRecord } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();
const { chunk, object, snapshot, packfile } = resourceTypes;
const PACKFILES = 4;
const BLOBS = 300;
/** Ids from here on are of states without a parent, which others name before they are there. */
const ROOTS = 50;

/** How such a store is read. */
const codec = (async () => {
  const keys = { passphrase: async () => Buffer.alloc(0), deriveKey };
  const store = await new StoreWriter().finish();
  return createCodec((await Repository.open(store, { counters: newReadCounters(), keys })).codecParameters);
})();

/** A store that counts the states it is asked for. */
class CountingStore extends StoreWriter {
  readonly statesRead: string[] = [];

  override readState(id: string): Promise<Uint8Array> {
    this.statesRead.push(id);
    return super.readState(id);
  }

  addState(id: number, parts: StateParts): void {
    this.states.set(toHex(idOf(id)), envelope(resourceTypes.state, versions.v1_1_0, stateBytes(parts)));
  }
}

/** MACs that share their first bytes, all of them or none, so that every way of sorting them is taken. */
function macOf(number: number): Uint8Array {
  const mac = idOf(number);
  if (number % 3 === 0) mac.fill(number & 0xff, 0, 5);
  if (number % 3 === 1) mac.fill(7, 0, 28);
  return mac;
}

/** A state of random records: locations, marks, packfiles, and removals of each of them. */
function randomRecords(random: Random): Buffer[] {
  return Array.from({ length: 150 }, () => {
    const place = idOf(1000 + random.below(PACKFILES));
    const blob = { blobType: [chunk, object, snapshot][random.below(3)]!, blobMac: macOf(random.below(BLOBS)) };
    const kind = random.below(40);
    if (kind < 34) {
      const location = { ...blob, packfileMac: place, offset: random.below(2 ** 31) * 64, length: random.below(1000) };
      return stateRecord(stateRecords.location, locationRecord.encode(location));
    }
    if (kind < 37) return stateRecord(stateRecords.packfile, packfileRecord.encode({ packfileMac: place }));
    const [resourceType, mac] = random.chance(0.5) ? [packfile, place] : [snapshot, blob.blobMac];
    if (kind === 37) return stateRecord(stateRecords.coloured, colouredRecord.encode({ resourceType, mac }));
    const recordType = [stateRecords.location, stateRecords.coloured, stateRecords.packfile][random.below(3)]!;
    const isMark = recordType === stateRecords.coloured;
    const removed = isMark ? { blobType: resourceType, blobMac: mac } : blob;
    return stateRecord(stateRecords.remove, removeRecord.encode({ recordType, ...removed, packfileMac: place }));
  });
}

/** Everything that can be asked of an index; in which order locations come that are equally good does not matter. */
async function ask(index: StateIndex): Promise<unknown> {
  const found: unknown[] = [];
  for (let number = 0; number < BLOBS + 5; number++) {
    for (const type of [chunk, object, snapshot]) {
      const locations = await index.locate(type, macOf(number));
      found.push(locations.map((location) => JSON.stringify(location)).sort());
    }
  }
  const { locations } = index;
  return { found, snapshots: locations.snapshots().map(toHex).sort(), states: [...locations.states].sort() };
}

/** Small indexes are read into memory, big ones looked up on disk: the same whatever the size. */
describe.each([1_000_000, 0])('a cached index (%i locations in memory)', (locationsInMemoryMax) => {
  const open = async (store: StoreWriter, path?: string) => {
    const cache = path === undefined ? undefined : await storeCache(path);
    const options = { cache, locationsInMemoryMax };
    return StateIndex.open({ store, codec: await codec, counters: newReadCounters() }, options);
  };

  it('says what the states say, however they came, and reads the new ones only', async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const random = seededRandom(seed);
      const path = temporaryFolder(cleanup);
      const store = await new CountingStore().finish();
      for (let step = 1; step <= 6; step++) {
        // Now and then one that is older than others, or whose parent comes later: all must be merged anew.
        const timestamp = BigInt(random.chance(0.2) ? random.below(step) : step);
        const isRoot = random.chance(0.2);
        const parent = idOf(isRoot ? 0 : random.chance(0.3) ? ROOTS + random.below(2) : step - 1);
        const id = isRoot ? ROOTS + random.below(2) : step;
        if (store.states.has(toHex(idOf(id)))) continue; // States are never rewritten.
        store.addState(id, { records: randomRecords(random), timestamp, parent });
        if (random.chance(0.1)) store.states.delete(toHex(idOf(random.below(step))));
        const plain = await open(store);
        const cached = await open(store, path);
        expect(await ask(cached), `seed ${seed}, step ${step}`).toEqual(await ask(plain));
        await cached.close();
        store.statesRead.length = 0;
        const warm = await open(store, path);
        expect(store.statesRead, `seed ${seed}, step ${step}`).toEqual([]);
        expect(await ask(warm), `seed ${seed}, step ${step}`).toEqual(await ask(plain));
        await warm.close();
      }
    }
  });

  it('is merged anew where a state turns up that one of its own follows', async () => {
    const path = temporaryFolder(cleanup);
    const store = await new CountingStore().finish();
    const id = macOf(1);
    const places = [
      stateRecord(
        stateRecords.location,
        locationRecord.encode({ blobType: snapshot, blobMac: id, packfileMac: idOf(1000), length: 1 }),
      ),
      stateRecord(stateRecords.packfile, packfileRecord.encode({ packfileMac: idOf(1000) })),
    ];
    const undone = { recordType: stateRecords.coloured, blobType: snapshot, blobMac: id };
    const undoes = stateRecord(stateRecords.remove, removeRecord.encode(undone));
    store.addState(1, { records: [...places, undoes], timestamp: 1n, parent: idOf(ROOTS) });
    await (await open(store, path)).close();
    const marks = stateRecord(stateRecords.coloured, colouredRecord.encode({ resourceType: snapshot, mac: id }));
    store.addState(ROOTS, { records: [marks], timestamp: 5n });
    const cached = await open(store, path);
    expect(cached.locations.snapshots().map(toHex)).toEqual([toHex(id)]);
    expect(await ask(cached)).toEqual(await ask(await open(store)));
    await cached.close();
  });

  it('that is damaged anywhere is made anew, while it is in use too', async () => {
    const path = temporaryFolder(cleanup);
    const random = seededRandom(99);
    const store = await new CountingStore().finish();
    for (let step = 1; step <= 3; step++)
      store.addState(step, { records: randomRecords(random), timestamp: BigInt(step) });
    const expected = await ask(await open(store));
    for (let round = 0; round < 25; round++) {
      const before = await open(store, path);
      const [file] = cachedFiles(path);
      const bytes = readFileSync(file!);
      bytes[32 + random.below(bytes.length - 32)]! ^= 1 << random.below(8);
      writeFileSync(file!, bytes); // In place: those who have it open see it, too.
      expect(await ask(before), `round ${round}`).toEqual(expected);
      await before.close();
      const after = await open(store, path);
      expect(await ask(after), `round ${round}`).toEqual(expected);
      await after.close();
    }
  });

  it('is shared by openings at the same time', async () => {
    const path = temporaryFolder(cleanup);
    const store = await new CountingStore().finish();
    store.addState(1, { records: randomRecords(seededRandom(5)), timestamp: 1n });
    const expected = await ask(await open(store));
    const all = await Promise.all(Array.from({ length: 6 }, () => open(store, path)));
    for (const repository of all) {
      expect(await ask(repository)).toEqual(expected);
      await repository.close();
    }
    expect(cachedFiles(path)).toHaveLength(1);
  });
});
