/**
 * kloset-nbd beside every other way to a database in a backup, in one run, on one machine and one set of data: restore,
 * restore into the base of a qcow2 overlay, plakar mount with overlayfs; nbdkit and qemu-nbd on a raw image for the
 * protocol alone. All disks are attached the same way (session.ts); before what is called cold the kernel's caches are
 * empty, and every program's own cache is a new one.
 *
 *   npm run bench -- [options]     (options.ts lists them)
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../../test/support/fixtures.ts';
import { undoAll, withCleanup } from './bench.ts';
import { describeMachine, warningOfLoad } from './machine.ts';
import { type BenchOptions, parseBenchOptions, usage } from './options.ts';
import { type ReportParts, renderReport, replaceInReadme, writeReport } from './report.ts';
import { Results } from './results.ts';
import { runBench } from './run.ts';

function optionsOrExit(): BenchOptions {
  if (process.argv.includes('--help')) {
    console.log(usage);
    process.exit(0);
  }
  try {
    return parseBenchOptions(process.argv.slice(2), join(projectRoot, 'native-free-bench/results'));
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(64);
  }
}

const options = optionsOrExit();
const directory = options.directory ?? os.tmpdir();
mkdirSync(directory, { recursive: true });
process.env.TMPDIR = directory;
const results = new Results();
const begin = performance.now();
const progress = (text: string) => console.error(`[${((performance.now() - begin) / 1000).toFixed(0)} s] ${text}`);
const head = describeMachine(options, directory);
const warning = warningOfLoad();
if (warning !== undefined) results.remark(warning);
for (const line of [...head, ...(warning === undefined ? [] : [warning])]) console.error(line);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void undoAll().finally(() => process.exit(1)));
}

const sizes = new Map<string, number>();
await withCleanup(async (cleanup) => {
  try {
    await runBench({ options, results, cleanup, progress }, sizes);
  } finally {
    writeAll({ head, results, sizes });
  }
});
// What could not be taken down after a failure must not keep this process.
process.exit(process.exitCode ?? 0);

function writeAll(parts: ReportParts): void {
  console.log(renderReport(parts));
  for (const path of writeReport(options.out, parts)) progress(`written: ${path}`);
  if (!options.readme) return;
  const path = join(projectRoot, 'README.md');
  writeFileSync(path, replaceInReadme(readFileSync(path, 'utf8'), parts));
  progress(`written: ${path}`);
}
