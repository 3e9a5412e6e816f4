/** Which rows are measured on which stores. */
import { mountNeeds } from '../../test/support/mount.ts';
import { postgresNeeds } from '../../test/support/postgres.ts';
import { type Need, requires } from '../../test/support/requires.ts';
import type { Bench, BenchStore } from './bench.ts';
import { albumStores, benchStores, databaseNeeds, type MadeStore, makeDatabase } from './database.ts';
import type { RowName } from './options.ts';
import { measureChunks } from './rows/chunks.ts';
import { measureFirstQuery } from './rows/first-query.ts';
import { measureLookups } from './rows/lookups.ts';
import { measurePgbench } from './rows/pgbench.ts';
import { measurePlot } from './rows/plot.ts';
import { measureRandom } from './rows/random.ts';
import { measureIncompressible, measureScans, measureSum } from './rows/scans.ts';
import { mayDropCaches } from './usage.ts';

/** Measures all there is to measure here; `sizes` gets the bytes of files behind each setting. */
export async function runBench(bench: Bench, sizes: Map<string, number>): Promise<void> {
  if (!mayDropCaches) {
    bench.results.remark(
      'Without root the caches of the kernel were not emptied: cold means the programs, not the disk.',
    );
  }
  bench.results.remark(
    "bytes of a store: of a distant one counted where they are sent; of a local one by kloset-nbd's own report, and of what plakar read(2) by /proc",
  );
  const stores = await firstStores(bench);
  for (const store of stores) await measureStore(bench, store, sizes);
  if (!bench.options.rows.includes('plot')) return;
  if (bench.options.album) bench.results.skip('row plot', 'the fixture has one size');
  else if (plotNeeds.missing) bench.results.skip('row plot', plotNeeds.title('').trim());
  else await measureOrSkip(bench, 'row plot', () => measurePlot(bench, sizes));
}

async function measureStore(bench: Bench, store: BenchStore, sizes: Map<string, number>): Promise<void> {
  sizes.set(store.setting, store.data.fileBytes);
  for (const row of rows) {
    if (!bench.options.rows.includes(row.name)) continue;
    const need = requires(...row.needs);
    if (need.missing) bench.results.skip(`row ${row.name}`, need.title('').trim());
    else await measureOrSkip(bench, `row ${row.name}, ${store.setting}`, () => row.measure(bench, store));
  }
}

/** A row that fails is told of, and the others are measured all the same. */
async function measureOrSkip({ results, progress }: Bench, what: string, measure: () => Promise<void>): Promise<void> {
  try {
    await measure();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    progress(`${what} failed: ${message}`);
    results.skip(what, `failed: ${message.split('\n')[0]}`);
    process.exitCode = 1;
  }
}

interface Row {
  readonly name: RowName;
  readonly needs: readonly Need[];
  readonly measure: (bench: Bench, store: BenchStore) => Promise<void>;
}

const postgresOnDisk = [...mountNeeds, ...postgresNeeds] as const;

const plotNeeds = requires(...postgresOnDisk, 'mkfs.ext4', 'plakar');

/** Later rows use what earlier ones found out. */
const rows: readonly Row[] = [
  { name: 'first-query', needs: [...postgresOnDisk, 'mkfs.ext4'], measure: measureFirstQuery },
  { name: 'chunks', needs: [], measure: measureChunks },
  { name: 'lookups', needs: [...postgresOnDisk, 'nbdkit', 'nbdcopy'], measure: measureLookups },
  { name: 'scans', needs: ['nbdkit', 'nbdcopy'], measure: measureScans },
  { name: 'scans', needs: [...postgresOnDisk, 'nbdkit', 'nbdcopy'], measure: measureSum },
  { name: 'incompressible', needs: ['nbdcopy', 'plakar'], measure: measureIncompressible },
  { name: 'random', needs: ['nbdkit', 'nbdcopy', 'fio'], measure: measureRandom },
  { name: 'pgbench', needs: [...postgresOnDisk, 'nbdkit', 'nbdcopy', 'qemu-img'], measure: measurePgbench },
];

async function firstStores(bench: Bench): Promise<BenchStore[]> {
  const { options, results, cleanup } = bench;
  if (options.storePlain !== undefined || options.storeEncrypted !== undefined) {
    return benchStores(bench, readyMade(bench), { scale: options.scale, isDistant: true }, cleanup);
  }
  if (!options.album && !databaseNeeds.missing) {
    const made = await makeDatabase(bench, options.scale, {}, cleanup);
    return benchStores(bench, made, { scale: options.scale, isDistant: true }, cleanup);
  }
  if (!options.album) results.skip('rows on a pgbench database', databaseNeeds.title('').trim());
  return benchStores(bench, albumStores, { scale: undefined, isDistant: true }, cleanup);
}

function readyMade({ options: { storePlain, storeEncrypted } }: Bench): MadeStore[] {
  const plain = storePlain && ({ kind: 'plaintext', directory: storePlain, passphrase: undefined } as const);
  const passphrase = process.env.PLAKAR_PASSPHRASE;
  const encrypted = storeEncrypted && ({ kind: 'encrypted', directory: storeEncrypted, passphrase } as const);
  return [plain, encrypted].filter((store) => typeof store === 'object');
}
