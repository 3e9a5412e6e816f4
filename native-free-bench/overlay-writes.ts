/**
 * Writing to a directory overlay, plain and encrypted, beside qemu-nbd over a qcow2 overlay of the same disk.
 *
 *   npm run bench:overlay -- [--seconds 5] [--rounds 3] [--dir DIRECTORY] [--only WORDS]
 *
 * All three write to DIRECTORY (default: the system's for temporary files) and make durable what they are asked to.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type BenchServer, compare, describeMachine, root, startKlosetNbd, stop, type Workload } from './fio.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    dir: { type: 'string', default: os.tmpdir() },
    only: { type: 'string', default: '' },
  },
});
const workloads: readonly Workload[] = [
  { name: '4 KiB random writes, each with a FLUSH', blockSize: '4k', pattern: 'randwrite', depth: 1, fsync: 1 },
  { name: '4 KiB random writes, a FLUSH for 16', blockSize: '4k', pattern: 'randwrite', depth: 16, fsync: 16 },
  { name: '1 MiB sequential writes, depth 1', blockSize: '1m', pattern: 'write', depth: 1 },
  { name: '1 MiB sequential writes, depth 4', blockSize: '1m', pattern: 'write', depth: 4 },
  { name: '1 MiB sequential writes, depth 8', blockSize: '1m', pattern: 'write', depth: 8 },
  { name: '1 MiB sequential writes, a FLUSH for 16', blockSize: '1m', pattern: 'write', depth: 4, fsync: 16 },
];
const SIZE_MIB = 1024;
/** Of the encrypted fixture. */
const PASSPHRASE = 'fixture passphrase 1';
const folder = mkdtempSync(join(values.dir, 'kloset-nbd-bench-'));
const store = (name: string) => {
  const path = join(root, 'fixtures/stores', name);
  return existsSync(join(path, 'store')) ? join(path, 'store') : path;
};
const keyfile = join(folder, 'keyfile');

function startKloset(name: string, ...options: string[]): Promise<BenchServer> {
  const overlay = ['--overlay', join(folder, `${name}-overlay`), '--free', '2G'];
  return startKlosetNbd(join(folder, name), ['latest', ...overlay, ...options]);
}

/** qemu-nbd over a new qcow2 whose backing file is a copy of the disk. */
async function startQemu(uri: string): Promise<BenchServer> {
  const [base, image, socket] = ['base.raw', 'overlay.qcow2', 'qemu'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  execFileSync('nbdcopy', [uri, base]);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, image]);
  const child = spawn('qemu-nbd', ['-f', 'qcow2', '-t', '-k', socket, image], { stdio: 'inherit' });
  while (!existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 20));
  return { uri: `nbd+unix:///?socket=${socket}`, stop: () => stop(child) };
}

writeFileSync(keyfile, PASSPHRASE, { mode: 0o600 });
console.log(describeMachine());
console.log(execFileSync('qemu-nbd', ['--version'], { encoding: 'utf8' }).split('\n')[0]);
console.log(`${values.rounds} rounds of ${values.seconds} s each, medians; ${SIZE_MIB} MiB of the disk\n`);
const plain = await startKloset('plain', '--store', store('album'));
const encrypted = await startKloset('encrypted', '--store', store('encrypted'), '--keyfile', keyfile);
const qemu = await startQemu(plain.uri);
try {
  compare<'plain' | 'encrypted' | 'qemu'>(
    { plain, encrypted, qemu },
    {
      workloads: workloads.filter(({ name }) => name.includes(values.only)),
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
      sizeMiB: SIZE_MIB,
      against: 'qemu',
    },
  );
} finally {
  for (const server of [plain, encrypted, qemu]) await server.stop();
  rmSync(folder, { recursive: true });
}
