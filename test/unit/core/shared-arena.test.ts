import { expect, it } from 'vitest';
import { ARENA_UNIT_BYTES, SharedArena } from '../../../src/core/shared-arena.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const units = (count: number) => count * ARENA_UNIT_BYTES;

it('gives out memory from both ends, and out of the middle what has come back', () => {
  const arena = new SharedArena(units(8));
  const low = [1, 2, 1].map((count) => arena.take(units(count)));
  const high = arena.take(units(1), 'high');
  const [one, two, three] = low as [Uint8Array, Uint8Array, Uint8Array];
  expect([one, two, three, high].map(({ byteOffset }) => byteOffset / ARENA_UNIT_BYTES)).toEqual([0, 1, 3, 7]);
  arena.give(two);
  expect(arena.take(units(2) - 1).byteOffset).toBe(units(1));
  arena.give(high);
  expect(arena.take(units(4)).byteOffset).toBe(units(4));
});

it('has more than its memory from elsewhere, and takes nothing back that is not its own', () => {
  const arena = new SharedArena(units(2));
  const inside = arena.take(units(2));
  const outside = arena.take(units(1));
  const small = arena.take(10);
  expect(outside.buffer).not.toBe(inside.buffer);
  expect(small.byteLength).toBe(10);
  for (const each of [outside, small, new Uint8Array(5)]) arena.give(each);
  expect(arena.take(units(1)).buffer).not.toBe(inside.buffer);
  arena.give(inside);
  expect(() => arena.give(inside)).toThrow('given back once');
  expect(new SharedArena(0).take(units(3)).byteLength).toBe(units(3));
});

it('never gives the same bytes to two, whatever comes and goes, and has all of it again at the end', () => {
  const random = seededRandom(11);
  const arena = new SharedArena(units(64));
  const held: { bytes: Uint8Array; mark: number }[] = [];
  for (let mark = 1; mark <= 5000; mark++) {
    if (held.length > 0 && random.chance(0.5)) {
      const [{ bytes, mark: theirs }] = held.splice(random.below(held.length), 1) as [(typeof held)[0]];
      expect([bytes[0], bytes.at(-1)]).toEqual([theirs % 251, theirs % 251]);
      arena.give(bytes);
    } else {
      const bytes = arena.take(1 + random.below(units(9)), random.chance(0.5) ? 'low' : 'high');
      bytes[0] = bytes[bytes.length - 1] = mark % 251;
      held.push({ bytes, mark });
    }
  }
  for (const { bytes } of held) arena.give(bytes);
  const all = arena.take(units(64));
  const next = arena.take(units(1));
  expect(next.buffer).not.toBe(all.buffer);
});
