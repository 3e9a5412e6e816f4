import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { DeviceExtent } from '../../../src/core/export-device.ts';
import { contextsOf, listContexts, metaContexts, selectContexts, statusRuns } from '../../../src/nbd/meta-context.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { StatusDevice } from '../../support/nbd-status-device.ts';

const [allocation, overlay] = metaContexts as [(typeof metaContexts)[0], (typeof metaContexts)[0]];
const names = (contexts: typeof metaContexts) => contexts.map(({ name }) => name);
const both = ['base:allocation', 'kloset:overlay'];

describe('contexts', () => {
  test('a device that cannot tell has none', () => {
    expect(contextsOf(new MemoryDevice(4096))).toEqual([]);
    expect(names(contextsOf(new StatusDevice(4096)))).toEqual(both);
  });

  test.each([
    [[], both, []],
    [['base:'], ['base:allocation'], []],
    [['kloset:'], ['kloset:overlay'], []],
    [['base:allocation'], ['base:allocation'], ['base:allocation']],
    [['kloset:overlay', 'base:allocation', 'base:allocation'], both, both],
    [['base:nothing', 'x-other:', 'no colon', '', ':'], [], []],
  ])('the queries %j list %j and select %j', (queries, listed, selected) => {
    expect(names(listContexts(metaContexts, queries))).toEqual(listed);
    expect(names(selectContexts(metaContexts, queries))).toEqual(selected);
  });
});

describe('statusRuns', () => {
  const data = { hole: false, zero: false, dirty: true };
  const hole = { hole: true, zero: true, dirty: false };
  const zero = { hole: false, zero: true, dirty: true };
  const all = { length: 1e9, one: false, compact: false };

  test('each context sees its own flags, and neighbours that are alike to it as one', () => {
    const extents = [
      { length: 1, ...data },
      { length: 2, ...zero },
      { length: 4, ...hole },
      { length: 8, ...hole },
    ];
    expect(statusRuns(allocation, extents, all)).toEqual([
      { length: 1, flags: 0 },
      { length: 2, flags: 2 },
      { length: 12, flags: 3 },
    ]);
    expect(statusRuns(overlay, extents, all)).toEqual([
      { length: 3, flags: 1 },
      { length: 12, flags: 0 },
    ]);
  });

  test('lengths above 32 bits end a compact reply, and go whole into an extended one', () => {
    const extents = [
      { length: 2 ** 40, ...hole },
      { length: 1, ...data },
    ];
    expect(statusRuns(allocation, extents, { length: 2 ** 41, one: false, compact: true })).toEqual([
      { length: 2 ** 32 - 4096, flags: 3 },
    ]);
    expect(statusRuns(allocation, extents, { length: 2 ** 41, one: false, compact: false })).toHaveLength(2);
  });

  test('the rules on lengths hold for any extents', () => {
    const extent: fc.Arbitrary<DeviceExtent> = fc.record({
      length: fc.integer({ min: 1, max: 100 }),
      hole: fc.boolean(),
      zero: fc.boolean(),
      dirty: fc.boolean(),
    });
    const extents = fc.array(extent, { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(extents, fc.integer({ min: 1, max: 500 }), fc.boolean(), (given, length, one) => {
        for (const context of metaContexts) {
          const runs = statusRuns(context, given, { length, one, compact: true });
          expect(runs.length).toBeGreaterThan(0);
          expect(runs.slice(0, -1).reduce((sum, run) => sum + run.length, 0)).toBeLessThan(length);
          if (one) {
            expect(runs).toHaveLength(1);
            expect(runs[0]!.length).toBeLessThanOrEqual(length);
          }
          // Byte for byte what the extents say.
          const said = runs.flatMap((run) => Array<number>(run.length).fill(run.flags));
          const meant = given.flatMap((run) => Array<number>(run.length).fill(context.flagsOf(run)));
          expect(said).toEqual(meant.slice(0, said.length));
          for (let i = 1; i < runs.length; i++) expect(runs[i]!.flags).not.toBe(runs[i - 1]!.flags);
        }
      }),
    );
  });
});
