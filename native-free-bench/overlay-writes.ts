/**
 * Writing to a directory overlay, plain and encrypted, beside qemu-nbd over a qcow2 overlay of the same disk.
 *
 *   npm run bench:overlay -- [--seconds 5] [--rounds 3] [--dir DIRECTORY] [--only WORDS]
 *
 * All three write to DIRECTORY (default: the system's for temporary files) and make durable what they are asked to. Each
 * run has an overlay of its own, so that none sees what another has left behind.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  type BenchServer,
  describeMachine,
  type Result,
  report,
  root,
  runFio,
  startKlosetNbd,
  stop,
  type Workload,
} from './fio.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    dir: { type: 'string', default: os.tmpdir() },
    only: { type: 'string', default: '' },
  },
});
/** `again`: over the range again and again, for so many seconds; otherwise once, where that ends sooner. */
const workloads: readonly (Workload & { readonly again?: true })[] = [
  {
    name: '4 KiB random writes, each with a FLUSH',
    blockSize: '4k',
    pattern: 'randwrite',
    depth: 1,
    fsync: 1,
    again: true,
  },
  {
    name: '4 KiB random writes, a FLUSH for 16',
    blockSize: '4k',
    pattern: 'randwrite',
    depth: 16,
    fsync: 16,
    again: true,
  },
  { name: '1 MiB sequential writes, depth 1', blockSize: '1m', pattern: 'write', depth: 1 },
  { name: '1 MiB sequential writes, depth 4', blockSize: '1m', pattern: 'write', depth: 4 },
  { name: '1 MiB sequential writes, depth 16', blockSize: '1m', pattern: 'write', depth: 16 },
  { name: '1 MiB sequential writes, a FLUSH for 16', blockSize: '1m', pattern: 'write', depth: 4, fsync: 16 },
  {
    name: '1 MiB sequential writes, depth 4, again and again',
    blockSize: '1m',
    pattern: 'write',
    depth: 4,
    again: true,
  },
];
const SIZE_MIB = 1024;
/** Of the encrypted fixture. */
const PASSPHRASE = 'fixture passphrase 1';
const folder = mkdtempSync(join(values.dir, 'kloset-nbd-bench-'));
const [base, keyfile] = [join(folder, 'base.raw'), join(folder, 'keyfile')];
const store = (name: string) => {
  const path = join(root, 'fixtures/stores', name);
  return existsSync(join(path, 'store')) ? join(path, 'store') : path;
};

type Contestant = 'plain' | 'encrypted' | 'qemu';
/** Each begins with a new overlay, in the directory it is given. */
const starts: Readonly<Record<Contestant, (directory: string) => Promise<BenchServer>>> = {
  plain: (directory) => startKloset(directory, '--store', store('album')),
  encrypted: (directory) => startKloset(directory, '--store', store('encrypted'), '--keyfile', keyfile),
  qemu: startQemu,
};

function startKloset(directory: string, ...options: string[]): Promise<BenchServer> {
  const overlay = ['--overlay', join(directory, 'overlay'), '--free', '2G'];
  return startKlosetNbd(join(directory, 'socket'), ['latest', ...overlay, ...options]);
}

/** qemu-nbd over a new qcow2 whose backing file is a copy of the disk. */
async function startQemu(directory: string): Promise<BenchServer> {
  const [image, socket] = [join(directory, 'overlay.qcow2'), join(directory, 'socket')];
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, image]);
  const child = spawn('qemu-nbd', ['-f', 'qcow2', '-t', '-k', socket, image], { stdio: 'inherit' });
  while (!existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 20));
  return { uri: `nbd+unix:///?socket=${socket}`, stop: () => stop(child) };
}

/** Calls `action` with a server that has a new overlay; what it has written is gone, from the disk too, when this resolves. */
async function withServer<T>(
  start: (directory: string) => Promise<BenchServer>,
  action: (uri: string) => T,
): Promise<T> {
  const directory = mkdtempSync(join(folder, 'run-'));
  const server = await start(directory);
  try {
    return action(server.uri);
  } finally {
    await server.stop();
    rmSync(directory, { recursive: true });
  }
}

async function race(workload: (typeof workloads)[number]): Promise<void> {
  const names = Object.keys(starts) as Contestant[];
  const results = new Map<Contestant, Result[]>(names.map((name) => [name, []]));
  const range = { sizeMiB: SIZE_MIB, seconds: workload.again ? Number(values.seconds) : undefined };
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of names) {
      results.get(name)!.push(await withServer(starts[name], (uri) => runFio(uri, workload, range)));
    }
  }
  report(workload.name, results, 'qemu');
}

writeFileSync(keyfile, PASSPHRASE, { mode: 0o600 });
try {
  console.log(describeMachine());
  console.log(execFileSync('qemu-nbd', ['--version'], { encoding: 'utf8' }).split('\n')[0]);
  console.log(
    `${values.rounds} rounds, each on a new overlay; medians; ${SIZE_MIB} MiB of the disk, once or for ${values.seconds} s\n`,
  );
  await withServer(starts.plain, (uri) => execFileSync('nbdcopy', [uri, base]));
  for (const workload of workloads) if (workload.name.includes(values.only)) await race(workload);
} finally {
  rmSync(folder, { recursive: true });
}
