/**
 * How long a big store and a big snapshot take to open, cold (an empty cache) and warm, and how much memory: each opening
 * is a process of its own, from reading CONFIG to a planned disk.
 *
 *   npm run bench:open -- [--files 1000000] [--records 1|3] [--rounds 3] [--dir DIRECTORY] [--store STORE]
 *
 * --records is how many of the index's records each file has: 1 where files share contents, 3 where each has its own.
 * --store names the store: written there if it is not yet, and kept. Input is generated, see big-store.ts; without a seed.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { writeBigStore } from './big-store.ts';

const { values } = parseArgs({
  options: {
    files: { type: 'string', default: '1000000' },
    records: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    dir: { type: 'string', default: os.tmpdir() },
    store: { type: 'string' },
    'cold-rounds': { type: 'string', default: '1' },
  },
});
const files = Number(values.files);
const recordsPerFile = values.records === '3' ? 3 : 1;
const directory = await mkdtemp(join(values.dir, 'kloset-nbd-open-'));
const store = values.store ?? join(directory, 'store');
const cache = join(directory, 'cache');

console.log(
  `machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}; load ${os.loadavg()[0]?.toFixed(1)}`,
);
console.log(
  `workload: one snapshot of ${files.toLocaleString('en')} files, ${recordsPerFile} record(s) of the index a file`,
);
try {
  if (!existsSync(join(store, 'CONFIG'))) await writeBigStore(store, { files, recordsPerFile });
  for (let round = 0; round < Number(values['cold-rounds']); round++) {
    await rm(cache, { recursive: true, force: true });
    report('cold', [openOnce(cache)]);
  }
  const warm = Array.from({ length: Number(values.rounds) }, () => openOnce(cache));
  report('warm', warm);
  const bytes = Number(execFileSync('du', ['-sb', cache]).toString().split('\t')[0]);
  console.log(`cache: ${(bytes / 2 ** 20).toFixed(0)} MiB`);
} finally {
  await rm(directory, { recursive: true });
}

interface Figures {
  readonly indexSeconds: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  readonly peakMiB: number;
  readonly storeMiB: number;
  readonly entries: number;
}

function openOnce(cacheDirectory: string): Figures {
  const script = fileURLToPath(new URL('open-once.mjs', import.meta.url));
  return JSON.parse(execFileSync(process.execPath, [script, store, cacheDirectory]).toString());
}

function report(what: string, runs: readonly Figures[]): void {
  const median = (pick: (run: Figures) => number) => runs.map(pick).sort((a, b) => a - b)[Math.floor(runs.length / 2)]!;
  console.log(
    `${what}: ${median((run) => run.seconds).toFixed(2)} s (index ${median((run) => run.indexSeconds).toFixed(2)} s), ` +
      `of processors ${median((run) => run.cpuSeconds).toFixed(2)} s, peak ${median((run) => run.peakMiB).toFixed(0)} MiB, ` +
      `resident ${median((run) => run.rssMiB).toFixed(0)} MiB, read of the store ${median((run) => run.storeMiB).toFixed(2)} MiB; ` +
      `${runs[0]!.entries} entries, median of ${runs.length}`,
  );
}
