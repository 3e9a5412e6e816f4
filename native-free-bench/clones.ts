/**
 * What clones cost: making one (a process that makes one beside a process that only says its version), opening many of
 * one snapshot, and copying one with writes in it while it is open.
 *
 *   npm run build && npx tsx native-free-bench/clones.ts [--store fixtures/stores/album] [--clones 50] [--dirty 64M] [--rounds 5] [--dir DIRECTORY]
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { LocalClones } from '../src/clones/local-clones.ts';
import { silentLog } from '../src/core/log.ts';
import { formatBytes, MiB, parseBytes } from '../src/core/units.ts';
import { OpenStore } from '../src/exports/open-store.ts';
import { LocalStore } from '../src/kloset/local-store.ts';

const { values } = parseArgs({
  options: {
    store: { type: 'string', default: 'fixtures/stores/album' },
    clones: { type: 'string', default: '50' },
    dirty: { type: 'string', default: '64M' },
    rounds: { type: 'string', default: '5' },
    dir: { type: 'string', default: os.tmpdir() },
  },
});
const count = Number(values.clones);
const rounds = Number(values.rounds);
const dirtyBytes = parseBytes(values.dirty) ?? 64 * MiB;
const folder = await mkdtemp(join(values.dir, 'clones-bench-'));
const directory = join(folder, 'clones');
const common = ['--store', values.store, '--clones', directory, '--cache-dir', join(folder, 'cache')];

/** Runs the program and says how long it took, in milliseconds. */
function timeProcess(args: readonly string[]): number {
  const begin = performance.now();
  const { status, stderr } = spawnSync(process.execPath, ['dist/cli/main.js', ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${args.join(' ')}: ${stderr}`);
  return performance.now() - begin;
}

async function time<T>(action: () => Promise<T>): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}

const show = (what: string, ms: number) => console.log(`${what.padEnd(58)} ${ms.toFixed(1)} ms`);
console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}; store ${values.store}`);
console.log(`workload: ${count} clones, ${formatBytes(dirtyBytes)} written to one; medians of ${rounds}`);
try {
  timeProcess(['clone', 'create', 'warm-up', 'latest', ...common]);
  const versions: number[] = [];
  const creates: number[] = [];
  for (let round = 0; round < rounds; round++) {
    versions.push(timeProcess(['--version']));
    creates.push(timeProcess(['clone', 'create', `process-${round}`, 'latest', ...common]));
  }
  show('process: --version', median(versions));
  show('process: clone create, opening the store included', median(creates));

  const store = await OpenStore.open({
    store: new LocalStore(values.store),
    cacheBytesMax: 256 * MiB,
    inflightBytesMax: 128 * MiB,
    keys: { passphrase: () => Promise.reject(new Error('the store is encrypted')), deriveKey: () => Promise.reject() },
  });
  const clones = await LocalClones.open({ directory, settings: {}, store: async () => store, log: silentLog });
  const pattern = await clones.registry.require('warm-up');
  const names = Array.from({ length: count }, (_, i) => `clone-${i}`);
  const made: number[] = [];
  for (const name of names) {
    const overlayId = Math.floor(Math.random() * 2 ** 48)
      .toString(16)
      .padStart(16, '0');
    made.push(await time(() => clones.registry.create({ ...pattern, name, overlayId })));
  }
  show('in a process that has the store: make one', median(made));
  console.log(`${'bytes of its record'.padEnd(58)} ${statSync(join(directory, 'clone-0.clone')).size}`);
  const records = await Promise.all(names.map((name) => clones.registry.require(name)));
  const opened: number[] = [];
  for (const record of records) {
    const hold = clones.devices.hold(record);
    opened.push(await time(() => hold.device));
  }
  show('open the first', opened[0]!);
  show('open each of the others', median(opened.slice(1)));
  const device = await clones.devices.hold(records[0]!).device;
  const piece = Buffer.alloc(1 * MiB, 'written');
  for (let at = 0; at < dirtyBytes; at += piece.length) await device.writable.write(at, piece, { fua: false });
  await device.writable.flush();
  const copies: number[] = [];
  for (let round = 0; round < rounds; round++) copies.push(await time(() => clones.copy('clone-0', `copy-${round}`)));
  show('copy the one that was written to, while it is open', median(copies));
  console.log(`files in the directory: ${readdirSync(directory).length}`);
  await clones.close();
  await store.close();
} finally {
  await rm(folder, { recursive: true, force: true });
}
