/** What the benchmarks of the NBD server share: fio's nbd engine, the built command line as a server, medians. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import os from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

export interface Workload {
  readonly name: string;
  readonly blockSize: string;
  readonly pattern: 'randread' | 'read' | 'randwrite' | 'write';
  readonly depth: number;
  /** A FLUSH after so many writes. */
  readonly fsync?: number;
}

export const readWorkloads: readonly Workload[] = [
  { name: '4 KiB random reads, depth 1', blockSize: '4k', pattern: 'randread', depth: 1 },
  { name: '4 KiB random reads, depth 16', blockSize: '4k', pattern: 'randread', depth: 16 },
  { name: '4 KiB random reads, depth 64', blockSize: '4k', pattern: 'randread', depth: 64 },
  { name: '1 MiB sequential reads, depth 4', blockSize: '1m', pattern: 'read', depth: 4 },
];

export interface Result {
  readonly iops: number;
  readonly mibPerSecond: number;
  readonly p99Us: number;
}

export interface BenchServer {
  readonly uri: string;
  /** SIGTERM, and its end. */
  stop(): Promise<void>;
}

export const root = fileURLToPath(new URL('..', import.meta.url));

/** The lines that head every benchmark. */
export function describeMachine(): string {
  const fio = execFileSync('fio', ['--version'], { encoding: 'utf8' }).trim();
  return (
    `machine: ${os.cpus()[0]?.model} x ${os.cpus().length}, load ${os.loadavg()[0]!.toFixed(1)}; node ${process.version}\n` +
    `client: ${fio}, engine nbd, Unix socket; fio's default seed`
  );
}

/** `kloset-nbd serve` on the Unix socket `path`. */
export function startKlosetNbd(path: string, args: readonly string[]): Promise<BenchServer> {
  const words = ['serve', ...args, '--listen', `unix:${path}`, '--log-level', 'error'];
  return started(spawnNode([join(root, 'dist/cli/main.js'), ...words]));
}

/** A program of ours that prints `ready URI`. */
export function spawnNode(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [...args], { stdio: ['ignore', 'pipe', 'inherit'] });
}

export async function started(child: ChildProcess): Promise<BenchServer> {
  for await (const line of createInterface({ input: child.stdout as Readable })) {
    if (line.startsWith('ready ')) return { uri: line.slice('ready '.length), stop: () => stop(child) };
  }
  throw new Error('a server ended before it was ready');
}

export async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

export interface FioRange {
  readonly sizeMiB: number;
  /** How long, over the range again and again; undefined: once. */
  readonly seconds: number | undefined;
}

export function runFio(
  uri: string,
  { blockSize, pattern, depth, fsync = 0 }: Workload,
  { seconds, sizeMiB }: FioRange,
): Result {
  const output = execFileSync(
    'fio',
    [
      ...['--name=bench', '--ioengine=nbd', `--uri=${uri}`, `--rw=${pattern}`, `--bs=${blockSize}`],
      ...[`--iodepth=${depth}`, `--size=${sizeMiB}m`, '--randrepeat=1', `--fsync=${fsync}`],
      ...(seconds === undefined ? [] : ['--time_based', `--runtime=${seconds}`]),
      '--output-format=json',
    ],
    { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024, cwd: os.tmpdir() },
  );
  // libnbd's remarks may stand before the JSON.
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: Record<string, FioSide>[] };
  const side = jobs[0]![pattern.endsWith('write') ? 'write' : 'read']!;
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

/** Each figure's own median. */
export function medianOf(results: readonly Result[]): Result {
  const middle = (figure: (result: Result) => number) =>
    results.map(figure).sort((a, b) => a - b)[Math.floor(results.length / 2)]!;
  return {
    iops: middle(({ iops }) => iops),
    mibPerSecond: middle(({ mibPerSecond }) => mibPerSecond),
    p99Us: middle(({ p99Us }) => p99Us),
  };
}

/**
 * Runs each workload against all servers, in turn within every round, and prints medians, and ratios to the server
 * `against`.
 */
export function compare<Name extends string>(
  servers: Readonly<Record<Name, BenchServer>>,
  {
    workloads,
    rounds,
    against,
    ...run
  }: {
    workloads: readonly Workload[];
    rounds: number;
    seconds: number;
    sizeMiB: number;
    against: Name;
  },
): void {
  const names = Object.keys(servers) as Name[];
  for (const workload of workloads) {
    const results = new Map<Name, Result[]>(names.map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const name of names) results.get(name)!.push(runFio(servers[name].uri, workload, run));
    }
    report(workload.name, results, against);
  }
}

/** Prints the medians of each, and their ratios to those of `against`. */
export function report<Name extends string>(
  title: string,
  results: ReadonlyMap<Name, readonly Result[]>,
  against: Name,
): void {
  const reference = medianOf(results.get(against)!);
  console.log(title);
  for (const [name, own] of results) {
    const { iops, mibPerSecond, p99Us } = medianOf(own);
    const columns = [`${iops.toFixed(0)} IOPS`, `${mibPerSecond.toFixed(0)} MiB/s`, `p99 ${p99Us.toFixed(0)} us`];
    const ratios = [`${(iops / reference.iops).toFixed(2)} x IOPS`, `${(p99Us / reference.p99Us).toFixed(2)} x p99`];
    const all = name === against ? columns : [...columns, ...ratios];
    console.log(`  ${name.padEnd(24)}${all.map((column) => column.padStart(16)).join('')}`);
  }
  console.log('');
}
