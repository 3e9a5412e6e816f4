/** What one chunk costs: fetched and decoded alone in this process, and through a server by a read of 8 KiB. */
import { temporaryFolder } from '../../../test/support/fixtures.ts';
import { RawClient } from '../../../test/support/nbd-client.ts';
import { type Bench, type BenchStore, note, randomNumbers, withCleanup } from '../bench.ts';
import { openContents, type PlacedChunk, placeChunksOf } from '../contents.ts';
import { median } from '../results.ts';
import { startKloset } from '../servers.ts';
import { dropCaches } from '../usage.ts';

/** Distinct chunks of each round. */
const CHUNKS = 100;
const READ_BYTES = 8192;

/** Both ways read the same chunks one after another, in rounds that take turns; the values are medians of one chunk. */
export async function measureChunks(bench: Bench, store: BenchStore): Promise<void> {
  bench.progress(`chunks one by one: ${store.setting}`);
  const chunks = pick(await placeChunksOf(store), bench.options.seed);
  for (let run = 0; run < bench.options.runs; run++) {
    const alone = await readAlone(store, chunks);
    const served = await readServed(bench, store, chunks);
    note(bench, store, 'kloset-nbd', { 'chunk-alone': median(alone), 'chunk-reads': median(served) });
  }
}

/** Some of them, each once, in no order. */
export function pick(chunks: PlacedChunk[], seed: number, count = CHUNKS): PlacedChunk[] {
  const numbers = randomNumbers(seed, 2 ** 32);
  const keyed = chunks.map((chunk) => ({ chunk, key: numbers.next().value }));
  return keyed
    .sort((a, b) => a.key - b.key)
    .slice(0, count)
    .map(({ chunk }) => chunk);
}

/** Milliseconds of each of them: fetched and decoded in this process, one after another, cold. */
export async function readAlone(store: BenchStore, chunks: readonly PlacedChunk[]): Promise<number[]> {
  const opened = await openContents(store);
  await dropCaches();
  const times = await timeEach(chunks, ({ chunk }) => opened.chunks.get(chunk));
  await opened.close();
  return times;
}

async function readServed(bench: Bench, store: BenchStore, chunks: readonly PlacedChunk[]): Promise<number[]> {
  return withCleanup(async (cleanup) => {
    const cacheDirectory = temporaryFolder(cleanup);
    const server = await startKloset(bench, store, { cacheDirectory, options: ['--read-only'] }, cleanup);
    const client = await (await RawClient.connect(server.uri)).hello();
    await client.go();
    await dropCaches();
    const times = await timeEach(chunks, ({ offset }) => client.read(offset, READ_BYTES));
    client.socket.destroy();
    await server.stop();
    return times;
  });
}

/** Milliseconds of each, one after another. */
async function timeEach<T>(items: readonly T[], action: (item: T) => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (const item of items) {
    const begin = performance.now();
    await action(item);
    times.push(performance.now() - begin);
  }
  return times;
}
