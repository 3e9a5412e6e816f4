/** What is kept of a stream of `plakar cat`, and what happens when nothing more can be. */
import { describe, expect, test, vi } from 'vitest';
import type { PlakarCatChunkStore } from '../../../src/source/plakar-cat-chunk-store.ts';
import { type FakePlakar, fakeLongFile } from '../../support/fake-plakar.ts';
import { plakarCatStores, small, stopTime } from '../../support/plakar-cat-store.ts';

const setUp = plakarCatStores();

describe('when nothing more is kept', () => {
  /** The limit is known to be reached once a chunk was refused. */
  async function fillSpool(fake: FakePlakar, store: PlakarCatChunkStore): Promise<void> {
    const filler = small('filler');
    const filled = store.get(filler.chunk(0));
    await (await fake.next()).finish(filler.content);
    await filled;
  }

  test('a stream waits for its reader, and starts over only for what has passed', async () => {
    const { fake, store, log } = await setUp({ bytesMax: 1000 });
    const file = fakeLongFile('/long', 6, 1000);
    fake.serve([file]);
    for (const index of [0, 1, 2, 3, 4, 5]) expect(await store.get(file.chunk(index))).toEqual(file.bytesOf(index));
    expect(fake.children).toHaveLength(1);
    expect(await store.get(file.chunk(0))).toEqual(file.bytesOf(0));
    expect(fake.children).toHaveLength(1);
    expect(await store.get(file.chunk(3))).toEqual(file.bytesOf(3));
    expect(fake.children).toHaveLength(2);
    // Behind the second stream, which stands at chunk 4 or 5.
    expect(await store.get(file.chunk(1))).toEqual(file.bytesOf(1));
    expect(fake.children).toHaveLength(3);
    expect(log.messages('warn')).toHaveLength(1);
  });

  test('no chunk passes before it is asked for, however slow the reader', async () => {
    const { fake, store } = await setUp({ bytesMax: 0 });
    await fillSpool(fake, store);
    const file = fakeLongFile('/long', 4, 1000);
    const head = store.get(file.chunk(0));
    const child = await fake.next();
    await child.write(file.content);
    await head;
    for (const index of [1, 2]) {
      // All output is there: what would be read ahead is read in these turns of the event loop.
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      expect(store.counters.chunksFetched).toBe(1 + index);
      expect(await store.get(file.chunk(index))).toEqual(file.bytesOf(index));
    }
    expect(fake.startsOf(file)).toBe(1);
  });

  test('a stream whose reader does not come back is ended', async () => {
    const time = stopTime();
    const { fake, store } = await setUp({ bytesMax: 0, idleTimeoutMs: 60_000 });
    await fillSpool(fake, store);
    const file = fakeLongFile('/long', 6, 1000);
    const got = store.get(file.chunk(0));
    const child = await fake.next();
    await child.write(file.content.subarray(0, 3000));
    await got;
    await time.pass(60_000);
    await child.gone;
    vi.useRealTimers();
    const again = store.get(file.chunk(0));
    await (await fake.next()).finish(file.content);
    expect(await again).toEqual(file.bytesOf(0));
  });
});
