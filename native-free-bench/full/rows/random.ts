/** The protocol alone: 4 KiB random reads by fio, of the backup and of a raw image with the same bytes. */
import { MiB } from '../../../src/core/units.ts';
import { temporaryFolder } from '../../../test/support/fixtures.ts';
import { runFio, type Workload } from '../../fio.ts';
import { type Bench, type BenchStore, note, withCleanup } from '../bench.ts';
import { rawImage } from '../raw-image.ts';
import { type DiskServer, serveRaw, startKloset } from '../servers.ts';
import { dropCaches } from '../usage.ts';

const randomReads: Workload = { name: '4 KiB random reads', blockSize: '4k', pattern: 'randread', depth: 16 };
const allReads: Workload = { name: 'all', blockSize: '1m', pattern: 'read', depth: 4 };
const WARM_MIB = 32;
const FILL_SECONDS = 2;

/** fio holds this process up, which also serves the distant stores: local ones only. */
export async function measureRandom(bench: Bench, store: BenchStore): Promise<void> {
  if (store.distant !== undefined) return;
  bench.progress(`4 KiB random reads: ${store.setting}`);
  const image = await rawImage(bench, store);
  for (let run = 0; run < bench.options.runs; run++) {
    for (const contestant of ['kloset-nbd', 'raw image'] as const) {
      await withCleanup(async (cleanup) => {
        await dropCaches();
        const options = { cacheDirectory: temporaryFolder(cleanup), options: ['--read-only'] };
        const server =
          contestant === 'kloset-nbd'
            ? await startKloset(bench, store, options, cleanup)
            : await serveRaw(cleanup, image);
        note(bench, store, contestant, measure(bench, store, server));
        await server.stop();
      });
    }
  }
}

function measure({ options }: Bench, { data }: BenchStore, { uri }: DiskServer) {
  const sizeMiB = Math.max(WARM_MIB, Math.floor(data.fileBytes / MiB));
  const seconds = options.loadSeconds;
  const cold = runFio(uri, randomReads, { seconds, sizeMiB });
  runFio(uri, allReads, { seconds: FILL_SECONDS, sizeMiB: WARM_MIB });
  const warm = runFio(uri, randomReads, { seconds, sizeMiB: WARM_MIB });
  return { 'random-cold': cold.iops, 'random-warm': warm.iops };
}
