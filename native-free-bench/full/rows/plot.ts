/** First queries on databases of other sizes: the points of the plot, and whether the size matters at all. */
import { type Bench, withCleanup } from '../bench.ts';
import { benchStores, makeDatabase } from '../database.ts';
import { measureFirstQuery } from './first-query.ts';

/** Beside that of `--scale`; `--full` adds the large one. */
const SMALL_SCALES = [1, 10];
const LARGE_SCALE = 1000;

/** Makes each database, measures on its local plaintext store, and removes it; `sizes` gets the bytes of its files. */
export async function measurePlot(bench: Bench, sizes: Map<string, number>): Promise<void> {
  const { options } = bench;
  const scales = [...SMALL_SCALES, ...(options.full ? [LARGE_SCALE] : [])].filter((scale) => scale !== options.scale);
  for (const scale of scales) {
    await withCleanup(async (cleanup) => {
      const made = await makeDatabase(bench, scale, { kinds: ['plaintext'] }, cleanup);
      const [store] = await benchStores(bench, made, { scale, isDistant: false }, cleanup);
      sizes.set(store!.setting, store!.data.fileBytes);
      const only = ['kloset-nbd', 'plakar restore', 'qcow2'] as const;
      await measureFirstQuery(bench, store!, { only });
    });
  }
}
