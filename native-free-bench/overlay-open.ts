/**
 * How long a directory overlay takes to open, in the worst case: every dirty block alone, written in random order, so
 * that no two of them make a run. The promise is at most a second for 10 GiB of dirty data.
 *
 *   npm run bench:overlay-open -- [--dirty 10G] [--rounds 3] [--seed 1] [--dir DIRECTORY]
 *
 * The log is a real one apart from its data: opening a log that was closed reads none of that, so the blocks are left
 * as holes, and a log of 10 GiB takes some 160 MB of disk.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { silentLog } from '../src/core/log.ts';
import { BLOCK_SIZE, formatBytes, GiB, parseBytes } from '../src/core/units.ts';
import { openLogDevice } from '../src/device/directory-overlays.ts';
import { nodeFileSystem, type OverlayFileSystem } from '../src/device/file-system.ts';
import { FORMAT_VERSION } from '../src/device/log-format.ts';
import type { OverlayDevice } from '../src/device/overlay.ts';
import { seededRandom } from '../test/support/overlay-random.ts';

const { values } = parseArgs({
  options: {
    dirty: { type: 'string', default: '10G' },
    rounds: { type: 'string', default: '3' },
    seed: { type: 'string', default: '1' },
    dir: { type: 'string', default: os.tmpdir() },
  },
});
const seed = Number(values.seed);
const dirtyBytes = parseBytes(values.dirty) ?? 10 * GiB;
const blocks = Math.floor(dirtyBytes / BLOCK_SIZE);
const sizeBytes = blocks * 2 * BLOCK_SIZE;
const data = Buffer.alloc(BLOCK_SIZE, 1);
const directory = await mkdtemp(join(values.dir, 'overlay-open-'));

console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}; seed ${seed}`);
console.log(`workload: ${formatBytes(dirtyBytes)} dirty, ${blocks} single blocks in random order; closed, then opened`);
try {
  await writeLog();
  for (let round = 0; round < Number(values.rounds); round++) {
    const begin = performance.now();
    const cpuBefore = process.cpuUsage();
    const device = await open(nodeFileSystem);
    const seconds = (performance.now() - begin) / 1000;
    const cpu = process.cpuUsage(cpuBefore);
    if (device.stats().dirtyBytes !== blocks * BLOCK_SIZE) throw new Error('the log has not all blocks');
    await device.close();
    const per10GiB = (value: number) => ((value * 10 * GiB) / dirtyBytes).toFixed(2);
    const cpuSeconds = (cpu.user + cpu.system) / 1e6;
    console.log(`opened: ${per10GiB(seconds)} s per 10 GiB, of processors ${per10GiB(cpuSeconds)} s (all threads)`);
  }
} finally {
  await rm(directory, { recursive: true });
}

function open(fileSystem: OverlayFileSystem): Promise<OverlayDevice> {
  const metadata = {
    formatVersion: FORMAT_VERSION,
    overlayId: '0123456789abcdef',
    exportKey: 'bench',
    sizeBytes,
    createdMs: 0,
    identity: { snapshotId: '', path: '/', layout: {} },
  };
  const base = { sizeBytes, read: async () => {}, close: async () => {} };
  return openLogDevice(directory, metadata, base, { fileSystem, log: silentLog });
}

async function writeLog(): Promise<void> {
  const order = new Uint32Array(blocks).map((_, index) => index);
  const random = seededRandom(seed);
  for (let index = blocks - 1; index > 0; index--) {
    const other = random.below(index + 1);
    [order[index], order[other]] = [order[other]!, order[index]!];
  }
  const device = await open(withHoles());
  for (let done = 0; done < blocks; done += 256) {
    const writes = [...order.subarray(done, done + 256)];
    await Promise.all(writes.map((block) => device.write(block * 2 * BLOCK_SIZE, data, { fua: false })));
  }
  await device.close();
}

/** The real file system, but blocks of data are not written. */
function withHoles(): OverlayFileSystem {
  return {
    ...nodeFileSystem,
    async open(path, access) {
      const file = await nodeFileSystem.open(path, access);
      return {
        ...file,
        write: (buffers, position) =>
          file.write(
            buffers.filter((buffer) => buffer.buffer !== data.buffer),
            position,
          ),
      };
    },
  };
}
