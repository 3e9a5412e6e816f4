import { describe, expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { identityOf, parsePlacedSelector, partOf, partsOf, snapshotsOf } from '../../../src/exports/composition.ts';
import type { SnapshotHeader } from '../../../src/kloset/snapshot.ts';

const header = (digit: string, tag: string) =>
  ({
    id: digit.repeat(64),
    tags: [tag],
    timestamp: { seconds: 0, nanoseconds: 0 },
    importer: { directory: Buffer.from('/srv') },
  }) as unknown as SnapshotHeader;
const [monday, tuesday] = [header('a', 'monday'), header('b', 'tuesday')];
const headers = [tuesday, monday];
const parts = (texts: readonly string[], into?: string) => partsOf(headers, texts.map(parsePlacedSelector), into);

describe('SELECTOR=NAME', () => {
  test.each([
    ['latest', undefined, undefined],
    ['latest=a', undefined, 'a'],
    ['latest:/x=y=b/c', '/x=y', 'b/c'],
    ['latest:/x=y=', '/x=y', undefined],
  ])('%s', (text, path, at) => {
    const placed = parsePlacedSelector(text);
    expect([placed.selector.path, placed.at]).toEqual([path, at]);
  });

  test('with a name that cannot be is refused', () => {
    for (const name of ['/a', '..', 'lost+found'])
      expect(() => parsePlacedSelector(`latest=${name}`)).toThrow(UserError);
  });
});

describe('what a disk is made of', () => {
  test('one snapshot is known by its id and directory, as it always was', () => {
    const one = parts(['tag:monday:data/']);
    expect(identityOf(one)).toEqual({ snapshotId: monday.id, path: '/srv/data' });
    expect(snapshotsOf(identityOf(one))).toEqual([monday.id]);
  });

  test('below a directory it is another disk of the same snapshot', () => {
    const identity = identityOf(parts(['tag:monday'], 'pgdata'));
    expect(identity.snapshotId).toBe(monday.id);
    expect(JSON.parse(identity.path)).toEqual([{ snapshot: monday.id, path: '/', at: 'pgdata' }]);
    expect(snapshotsOf(identity)).toEqual([monday.id]);
  });

  test('several have an identity that changes with each snapshot, directory, name and order', () => {
    const all = [
      parts(['tag:monday=a', 'tag:tuesday=b']),
      parts(['tag:monday=b', 'tag:tuesday=a']),
      parts(['tag:tuesday=b', 'tag:monday=a']),
      parts(['tag:monday:/x=a', 'tag:tuesday=b']),
      parts(['tag:monday=a', 'tag:monday=b']),
      parts(['tag:monday=a', 'tag:tuesday=b'], 'c'),
    ].map(identityOf);
    expect(new Set(all.map(({ snapshotId }) => snapshotId)).size).toBe(all.length);
    expect(new Set(all.map(({ path }) => path)).size).toBe(all.length);
    expect(all.every(({ snapshotId }) => /^[0-9a-f]{64}$/.test(snapshotId))).toBe(true);
    expect(snapshotsOf(all[2]!)).toEqual([tuesday.id, monday.id]);
  });

  test('is put below --into, name and all', () => {
    const placed = parsePlacedSelector('latest=a/b');
    expect(partOf(tuesday, placed, 'top').at).toBe('top/a/b');
    expect(partOf(tuesday, placed, undefined).at).toBe('a/b');
  });

  test('several without names are refused, as is what matches nothing', () => {
    expect(() => parts(['latest', 'tag:monday=a'])).toThrow('latest=NAME');
    expect(() => parts(['latest', 'tag:monday'], 'x')).toThrow(UserError);
    expect(() => parts(['tag:none=a'])).toThrow(UserError);
  });
});
