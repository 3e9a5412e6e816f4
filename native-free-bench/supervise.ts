/**
 * What `--supervise` costs: fio's nbd engine over a Unix socket against the built command line, plain and supervised in
 * turn, on the album of the fixtures with a directory overlay. The blocks are warm after the first round of a server.
 *
 *   npx tsx native-free-bench/supervise.ts [--seconds 5] [--rounds 3]
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

interface Workload {
  readonly name: string;
  readonly blockSize: string;
  readonly pattern: 'randread' | 'read' | 'randwrite';
  readonly depth: number;
}

const workloads: readonly Workload[] = [
  { name: '4 KiB random reads, depth 1', blockSize: '4k', pattern: 'randread', depth: 1 },
  { name: '4 KiB random reads, depth 16', blockSize: '4k', pattern: 'randread', depth: 16 },
  { name: '4 KiB random reads, depth 64', blockSize: '4k', pattern: 'randread', depth: 64 },
  { name: '1 MiB sequential reads, depth 4', blockSize: '1m', pattern: 'read', depth: 4 },
  { name: '4 KiB random writes, depth 16', blockSize: '4k', pattern: 'randwrite', depth: 16 },
];
const variants = ['plain', 'supervised'] as const;
type Variant = (typeof variants)[number];

interface Result {
  readonly iops: number;
  readonly mibPerSecond: number;
  readonly p99Us: number;
}

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '5' }, rounds: { type: 'string', default: '3' } },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(os.tmpdir(), 'kloset-nbd-bench-'));

console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}`);
console.log(`client: ${execFileSync('fio', ['--version'], { encoding: 'utf8' }).trim()}, engine nbd, Unix socket`);
console.log(`${values.rounds} rounds of ${values.seconds} s each, medians; 32 MiB of the disk\n`);
const servers = {
  plain: await startServer('plain'),
  supervised: await startServer('supervised'),
};
try {
  for (const workload of workloads) {
    const results: Record<Variant, Result[]> = { plain: [], supervised: [] };
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const variant of variants) results[variant].push(runFio(servers[variant].uri, workload));
    }
    const [plain, supervised] = variants.map((variant) => medianOf(results[variant]));
    console.log(workload.name);
    for (const [name, { iops, mibPerSecond, p99Us }] of Object.entries({ plain, supervised }) as [Variant, Result][]) {
      const columns = [`${iops.toFixed(0)} IOPS`, `${mibPerSecond.toFixed(0)} MiB/s`, `p99 ${p99Us.toFixed(0)} us`];
      console.log(`  ${name.padEnd(12)}${columns.map((column) => column.padStart(16)).join('')}`);
    }
    console.log(`  ratio       ${(supervised!.iops / plain!.iops).toFixed(2).padStart(11)}\n`);
  }
} finally {
  for (const { child } of Object.values(servers)) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
  rmSync(folder, { recursive: true });
}

async function startServer(variant: Variant): Promise<{ uri: string; child: ChildProcess }> {
  const options = [
    'latest',
    ...['--store', join(root, 'fixtures/stores/album')],
    ...['--overlay', join(folder, `${variant}-overlay`)],
    ...['--listen', `unix:${join(folder, variant)}`],
    ...['--log-level', 'error'],
    ...(variant === 'supervised' ? ['--supervise'] : []),
  ];
  const child = spawn(process.execPath, [join(root, 'dist/cli/main.js'), 'serve', ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('ready ')) return { uri: line.slice('ready '.length), child };
  }
  throw new Error(`the ${variant} server ended before it was ready`);
}

function runFio(uri: string, { blockSize, pattern, depth }: Workload): Result {
  const output = execFileSync(
    'fio',
    [
      ...['--name=bench', '--ioengine=nbd', `--uri=${uri}`, `--rw=${pattern}`, `--bs=${blockSize}`],
      ...[`--iodepth=${depth}`, '--size=32m', '--time_based', `--runtime=${values.seconds}`, '--randrepeat=1'],
      '--output-format=json',
    ],
    { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  );
  // libnbd's remarks may stand before the JSON.
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: Record<string, FioSide>[] };
  const side = jobs[0]![pattern === 'randwrite' ? 'write' : 'read']!;
  return {
    iops: side.iops,
    mibPerSecond: side.bw_bytes / 1024 / 1024,
    p99Us: (side.clat_ns.percentile?.['99.000000'] ?? 0) / 1000,
  };
}

interface FioSide {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

function medianOf(results: readonly Result[]): Result {
  const sorted = [...results].sort((a, b) => a.iops - b.iops);
  return sorted[Math.floor(sorted.length / 2)]!;
}
