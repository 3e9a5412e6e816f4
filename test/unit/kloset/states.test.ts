/** States: taking them apart, putting them in order, and what their merge says (kloset-format section 7). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CorruptStoreError } from '../../../src/core/errors.ts';
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
import { LocationIndex } from '../../../src/kloset/location-index.ts';
import { orderStates, parseState, type State } from '../../../src/kloset/state.ts';
import { idOf, type StateParts, stateBytes, stateRecord } from '../../support/store-writer.ts';

const { chunk, snapshot, padding, packfile } = resourceTypes;

function location(type: number, mac: Uint8Array, inPackfile: number, offset = 0): Buffer {
  const fields = { blobType: type, blobMac: mac, packfileMac: idOf(inPackfile), offset, length: 10 };
  return stateRecord(stateRecords.location, locationRecord.encode(fields));
}
const listed = (id: number) => stateRecord(stateRecords.packfile, packfileRecord.encode({ packfileMac: idOf(id) }));
const coloured = (type: number, id: Uint8Array) =>
  stateRecord(stateRecords.coloured, colouredRecord.encode({ resourceType: type, mac: id }));
function removal(recordType: number, blobType: number, mac: Uint8Array, inPackfile = 0): Buffer {
  const fields = { recordType, blobType, blobMac: mac, packfileMac: idOf(inPackfile) };
  return stateRecord(stateRecords.remove, removeRecord.encode(fields));
}
const stateId = (id: number) => toHex(idOf(id));
function state(id: number, parts: StateParts): State {
  return parseState(stateId(id), parts.version ?? versions.v1_1_0, stateBytes(parts));
}
const merged = (...records: Buffer[]) => LocationIndex.merge([state(1, { records })]);
const placesOf = (index: LocationIndex, mac: Uint8Array, type: number = chunk) =>
  index.find(type, mac).map((found) => Number.parseInt(found.packfile, 16));

describe('a state', () => {
  it('has a parent since 1.1.0 only, and zeroes are none', () => {
    expect(state(1, { parent: idOf(9) }).parent).toBe(stateId(9));
    expect(state(1, {}).parent).toBeUndefined();
    const old = state(1, { version: versions.v1_0_0, records: [listed(3)], timestamp: 5n });
    expect(old).toMatchObject({ parent: undefined, timestampNanoseconds: 5n });
    expect(
      LocationIndex.merge([old, state(2, { records: [location(chunk, idOf(8), 3)] })]).find(chunk, idOf(8)),
    ).toHaveLength(1);
  });

  it('is refused wherever it is cut, and with bytes behind its end', () => {
    const whole = stateBytes({ records: [location(chunk, idOf(1), 1), listed(1)] });
    for (let end = 0; end < whole.byteLength; end++) {
      expect(() => parseState('s', versions.v1_1_0, whole.subarray(0, end)), `cut at ${end}`).toThrow(
        /State s is damaged/,
      );
    }
    expect(() => parseState('s', versions.v1_1_0, Buffer.concat([whole, Buffer.from([0])]))).toThrow(CorruptStoreError);
  });

  it('is refused if its metadata names another version', () => {
    expect(() => parseState('s', versions.v1_1_0, stateBytes({ version: 0x10105 }))).toThrow(/says version 1\.1\.5/);
  });

  it('skips records of unknown types by their length', () => {
    const unknown = stateRecord(77, Buffer.alloc(300, 1));
    expect(
      placesOf(merged(unknown, location(chunk, idOf(1), 1), stateRecord(78, Buffer.alloc(0)), listed(1)), idOf(1)),
    ).toEqual([1]);
  });

  it.each([stateRecords.location, stateRecords.coloured, stateRecords.packfile, stateRecords.remove])(
    'is refused, and named, if a record of type %i has the wrong length',
    (type) => {
      for (const length of [0, 40, 86]) {
        expect(() => merged(stateRecord(type, Buffer.alloc(length)))).toThrow(`State ${stateId(1)} is damaged`);
      }
    },
  );

  it('is refused, and named, if an offset is no number', () => {
    const record = location(chunk, idOf(1), 1);
    record.fill(0xff, 5 + locationRecord.offsetOf('offset'), 5 + locationRecord.offsetOf('length'));
    expect(() => merged(record)).toThrow(new RegExp(`State ${stateId(1)} is damaged: .*2\\^53`));
  });
});

describe('the order of states', () => {
  const order = (...states: State[]) => orderStates(states).map(({ id }) => Number.parseInt(id, 16));

  it('puts each behind its parent, whatever the clock says', () => {
    const first = state(1, { timestamp: 100n });
    const second = state(2, { parent: idOf(1), timestamp: 50n });
    const third = state(3, { parent: idOf(2), timestamp: 10n });
    expect(order(third, second, first)).toEqual([1, 2, 3]);
  });

  it('takes siblings by time, then by id, and those with an absent parent as roots', () => {
    const root = state(1, { timestamp: 1n });
    const late = state(2, { parent: idOf(1), timestamp: 9n });
    const early = state(3, { parent: idOf(1), timestamp: 5n });
    const same = state(4, { parent: idOf(1), timestamp: 5n });
    const orphan = state(5, { parent: idOf(99), timestamp: 7n });
    for (const states of [
      [root, late, early, same, orphan],
      [orphan, same, late, early, root],
    ]) {
      expect(order(...states)).toEqual([1, 3, 4, 5, 2]);
    }
  });

  it('takes a state that names itself as a root, and refuses a longer cycle', () => {
    expect(order(state(1, { parent: idOf(1) }))).toEqual([1]);
    expect(() => order(state(1, { parent: idOf(2) }), state(2, { parent: idOf(1) }))).toThrow(/own ancestor/);
  });

  it('never depends on the listing', () => {
    const parents = fc.array(fc.record({ parent: fc.nat(30), time: fc.bigInt(0n, 5n) }), {
      minLength: 1,
      maxLength: 30,
    });
    fc.assert(
      fc.property(parents, fc.infiniteStream(fc.nat()), (shape, random) => {
        // A parent is an earlier state or none: no cycles.
        const states = shape.map(({ parent, time }, i) =>
          state(i + 1, { timestamp: time, ...(parent > 0 && parent <= i ? { parent: idOf(parent) } : {}) }),
        );
        const expected = order(...states);
        const shuffled = states.map((item) => ({ item, key: random.next().value! })).sort((a, b) => a.key - b.key);
        expect(order(...shuffled.map(({ item }) => item))).toEqual(expected);
        for (const { id, parent } of states) {
          if (parent !== undefined) {
            expect(expected.indexOf(Number.parseInt(parent, 16))).toBeLessThan(
              expected.indexOf(Number.parseInt(id, 16)),
            );
          }
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('merged states', () => {
  it('find a blob by type and MAC together', () => {
    const index = merged(location(chunk, idOf(1), 1), location(resourceTypes.object, idOf(1), 2), listed(1), listed(2));
    expect([placesOf(index, idOf(1)), placesOf(index, idOf(1), resourceTypes.object)]).toEqual([[1], [2]]);
    expect(placesOf(index, idOf(1), resourceTypes.vfsEntry)).toEqual([]);
    expect(placesOf(index, idOf(2))).toEqual([]);
  });

  it('ignore locations in packfiles that no state lists, and padding', () => {
    const index = merged(
      location(chunk, idOf(1), 1),
      location(chunk, idOf(1), 2),
      location(padding, idOf(3), 2),
      listed(2),
    );
    expect(placesOf(index, idOf(1))).toEqual([2]);
    expect(placesOf(index, idOf(3), padding)).toEqual([]);
  });

  it('put locations in packfiles marked as deleted last', () => {
    const both = [location(chunk, idOf(1), 1), location(chunk, idOf(1), 2), listed(1), listed(2)];
    for (const marked of [1, 2]) {
      expect(placesOf(merged(...both, coloured(packfile, idOf(marked))), idOf(1)).at(-1)).toBe(marked);
    }
  });

  it('keep the first location of a blob in one packfile', () => {
    const index = merged(location(chunk, idOf(1), 1, 100), location(chunk, idOf(1), 1, 200), listed(1));
    expect(index.find(chunk, idOf(1)).map(({ offset }) => offset)).toEqual([100]);
  });

  it('take away what a removal names, and take it in again', () => {
    const base = [location(chunk, idOf(1), 1), location(snapshot, idOf(5), 1), listed(1)];
    const gone = [
      removal(stateRecords.location, chunk, idOf(1), 1),
      removal(stateRecords.location, snapshot, idOf(5), 1),
    ];
    const index = merged(...base, ...gone);
    expect([placesOf(index, idOf(1)), index.snapshots()]).toEqual([[], []]);
    const again = merged(...base, ...gone, ...base);
    expect([placesOf(again, idOf(1)), again.snapshots().map(toHex)]).toEqual([[1], [stateId(5)]]);
    expect(placesOf(merged(...base, removal(stateRecords.packfile, 0, idOf(0), 1)), idOf(1))).toEqual([]);
  });

  it('name a snapshot until it is marked as deleted, and again when the mark is removed', () => {
    const base = [location(snapshot, idOf(5), 1), location(snapshot, idOf(5), 2), listed(1), listed(2)];
    expect(
      merged(...base)
        .snapshots()
        .map(toHex),
    ).toEqual([stateId(5)]);
    expect(merged(...base, coloured(snapshot, idOf(5))).snapshots()).toEqual([]);
    const undone = [coloured(snapshot, idOf(5)), removal(stateRecords.coloured, snapshot, idOf(5))];
    expect(
      merged(...base, ...undone)
        .snapshots()
        .map(toHex),
    ).toEqual([stateId(5)]);
  });

  it('apply the removals of a younger sibling to marks of an older one (the trap of 7.3)', () => {
    const backup = state(1, {
      records: [location(chunk, idOf(1), 1), location(chunk, idOf(1), 2), listed(1), listed(2)],
      timestamp: 1n,
    });
    const marks = state(2, { parent: idOf(1), records: [coloured(packfile, idOf(1))], timestamp: 2n });
    const undoes = { parent: idOf(1), records: [removal(stateRecords.coloured, packfile, idOf(1))], timestamp: 3n };
    // Ids on either side: only the time decides.
    for (const id of [3, 0x10000]) {
      for (const states of [
        [backup, marks, state(id, undoes)],
        [state(id, undoes), marks, backup],
      ]) {
        expect(placesOf(LocationIndex.merge(states), idOf(1)).sort()).toEqual([1, 2]);
        expect(placesOf(LocationIndex.merge(states), idOf(1))).toEqual(
          placesOf(LocationIndex.merge([backup]), idOf(1)),
        );
      }
    }
    const tooEarly = state(3, { ...undoes, timestamp: 1n });
    expect(placesOf(LocationIndex.merge([backup, marks, tooEarly]), idOf(1))).toEqual([2, 1]);
  });

  it('agree with a Map, a hundred thousand records long, MACs that differ in one byte among them', () => {
    const model = new Map<string, Set<number>>();
    const records: Buffer[] = [];
    let seed = 1;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (let i = 0; i < 100_000; i++) {
      const mac = new Uint8Array(32).fill(random(256), random(32));
      new DataView(mac.buffer).setUint32(random(2) * 28, random(20_000));
      const place = random(3) + 1;
      records.push(location(chunk, mac, place));
      const key = toHex(mac);
      model.set(key, (model.get(key) ?? new Set()).add(place));
    }
    const index = merged(...records, listed(1), listed(2), listed(3));
    expect(index.locationCount).toBe([...model.values()].reduce((count, places) => count + places.size, 0));
    for (const [hex, places] of model) {
      const found = placesOf(index, Buffer.from(hex, 'hex'));
      if (found.length !== places.size || !found.every((place) => places.has(place))) {
        expect(found, hex).toEqual([...places]);
      }
    }
    expect(placesOf(index, idOf(0xdeadbeef))).toEqual([]);
  });
});
