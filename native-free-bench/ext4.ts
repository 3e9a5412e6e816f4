/**
 * What the ext4 layout costs on generated trees: planning it, finding a block, rendering blocks, and the first look into
 * a directory of a million names while other requests come in.
 *
 *   npm run bench:ext4 [-- --files 10000000 --rounds 3 --seed 1]
 *
 * Each part runs in a process of its own, so that memory is that of the part alone. Rounds: median, and each.
 */
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { SnapshotTree } from '../src/core/snapshot-tree.ts';
import { BLOCK_SIZE, formatBytes, GiB } from '../src/core/units.ts';
import { Ext4Image } from '../src/ext4/image.ts';
import type { Layout } from '../src/ext4/layout.ts';
import { locate } from '../src/ext4/locate.ts';
import { planLayout } from '../src/ext4/plan.ts';
import { BlockRenderer } from '../src/ext4/render.ts';
import { FILES_PER_DIRECTORY, generateTree } from '../test/support/ext4-generated.ts';
import { Random } from '../test/support/ext4-random.ts';

const { values } = parseArgs({
  allowPositionals: false,
  options: {
    files: { type: 'string', default: '10000000' },
    rounds: { type: 'string', default: '3' },
    seed: { type: 'string', default: '1' },
    part: { type: 'string' },
  },
});
const files = Number(values.files);
const rounds = Number(values.rounds);
const seed = Number(values.seed);
const identity = { snapshotId: 'be'.repeat(32), createdSeconds: 1_750_000_000 };
const NAMES_IN_DIRECTORY = 1_000_000;

function manyFiles(): SnapshotTree {
  const random = new Random(seed + 1);
  // Mostly small, some large: as home directories are.
  const sizeOf = () => Math.floor(2 ** random.integer(0, 18) * random.next());
  return generateTree({ seed, entries: files, directories: Math.ceil(files / FILES_PER_DIRECTORY), sizeOf });
}

function terabytes(): SnapshotTree {
  const each = Math.floor((16 * 1024 * GiB) / 10_000);
  return generateTree({ seed, entries: 10_011, directories: 10, sizeOf: (i) => each - i });
}

function plan(tree: SnapshotTree): Layout {
  return planLayout(tree, {}, identity);
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

/** Milliseconds of processor time, collecting garbage included: on a machine that others use, too, the clock would say more about them. */
function timed(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Milliseconds, one figure a round and the median. */
function report(what: string, milliseconds: readonly number[], unit: 'ms' | 'us' = 'ms'): void {
  const text = (value: number) => (unit === 'us' ? value * 1000 : value).toFixed(2);
  const each = milliseconds.map(text).join(', ');
  console.log(`  ${what}: median ${text(median(milliseconds))} ${unit} (${each})`);
}

function repeat(work: () => number): number[] {
  return Array.from({ length: rounds }, work);
}

function residentBytes(): number {
  const collect = (globalThis as { gc?: () => void }).gc;
  collect?.();
  return process.memoryUsage.rss();
}

/** Finding what a block is, at random places, per block. */
function benchLocate(layout: Layout): void {
  const count = 200_000;
  const perBlock = repeat(() => {
    const random = new Random(seed + 2);
    const { usedBlocks } = layout.geometry;
    return (
      timed(() => {
        for (let i = 0; i < count; i++) locate(layout, Math.floor(random.next() * usedBlocks));
      }) / count
    );
  });
  report('block lookup', perBlock, 'us');
}

/** Rendering a block of a kind, per block; every block once, so that no cache has it. */
function benchRender(layout: Layout, what: string, blockAt: (i: number) => number, count: number): void {
  const perBlock = repeat(() => {
    const renderer = new BlockRenderer(layout);
    return (
      timed(() => {
        for (let i = 0; i < count; i++) renderer.render(locate(layout, blockAt(i)), blockAt(i));
      }) / count
    );
  });
  report(what, perBlock, 'us');
}

function benchMany(): void {
  const before = residentBytes();
  const tree = manyFiles();
  const columns = residentBytes();
  let layout = plan(tree);
  const after = residentBytes();
  const peak = process.resourceUsage().maxRSS * 1024;
  report(
    `layout of ${files} files`,
    repeat(() =>
      timed(() => {
        layout = plan(tree);
      }),
    ),
  );
  console.log(
    `  memory: columns with names ${formatBytes(columns - before)}, with the layout ${formatBytes(after - before)}; ` +
      `the whole process at most ${formatBytes(peak)}`,
  );
  benchLocate(layout);
  const { geometry, metadataStarts } = layout;
  const { map, tables, metadata } = geometry;
  const random = new Random(seed + 3);
  const usedTables = Math.floor(layout.lastInode / 16);
  const tableBlocks = Array.from({ length: 4000 }, () =>
    map.toPhysical(tables + random.integer(1, usedTables - 1)),
  ).filter((block) => locate(layout, block).kind === 'inode-table');
  benchRender(layout, 'inode-table block', (i) => tableBlocks[i]!, tableBlocks.length);
  const directories = Math.ceil(files / FILES_PER_DIRECTORY);
  const firstBlocks = Array.from({ length: 2000 }, () => random.integer(1, directories)).map((directory) =>
    map.toPhysical(metadata + metadataStarts[directory]!),
  );
  // Hashed before: the second block of the same directory.
  benchRender(layout, 'directory of 200 names, hashing included', (i) => firstBlocks[i]!, firstBlocks.length);
  benchHashed(layout, firstBlocks);
  benchRender(layout, 'group-descriptor block', (i) => 1 + i, Math.min(400, geometry.descriptorBlocks));
}

/** Blocks of directories whose names are in order already. */
function benchHashed(layout: Layout, firstBlocks: readonly number[]): void {
  const perBlock = repeat(() => {
    const renderer = new BlockRenderer(layout);
    for (const block of firstBlocks) renderer.render(locate(layout, block), block);
    return (
      timed(() => {
        for (const block of firstBlocks) renderer.render(locate(layout, block + 1), block + 1);
      }) / firstBlocks.length
    );
  });
  report('directory of 200 names, a block more of a hashed one', perBlock, 'us');
}

function benchTerabytes(): void {
  const tree = terabytes();
  let layout = plan(tree);
  report(
    'layout of 16 TiB in 10,000 files',
    repeat(() =>
      timed(() => {
        layout = plan(tree);
      }),
    ),
  );
  console.log(`  memory of the whole process: ${formatBytes(residentBytes())}`);
  benchLocate(layout);
}

/** The first lookup in a directory of a million names, and how long others wait meanwhile. */
async function benchLargeDirectory(): Promise<void> {
  const tree = generateTree({ seed, entries: NAMES_IN_DIRECTORY + 2, directories: 1, sizeOf: () => 1000 });
  const layout = plan(tree);
  const start = layout.geometry.map.toPhysical(layout.geometry.metadata + layout.metadataStarts[1]!) * BLOCK_SIZE;
  const tables = layout.geometry.map.toPhysical(layout.geometry.tables) * BLOCK_SIZE;
  const firstMs: number[] = [];
  const stalledMs: number[] = [];
  const otherMs: number[] = [];
  const hashingMs = repeat(() => {
    const renderer = new BlockRenderer(layout);
    return timed(() => renderer.render(locate(layout, start / BLOCK_SIZE), start / BLOCK_SIZE));
  });
  for (let round = 0; round < rounds; round++) {
    const image = new Ext4Image(layout, { read: async (_entry, _offset, target) => void target.fill(1) });
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    let isDone = false;
    const startedMs = performance.now();
    const lookup = image.read(start, new Uint8Array(BLOCK_SIZE)).then(() => {
      isDone = true;
      firstMs.push(performance.now() - startedMs);
    });
    let slowestMs = 0;
    for (let i = 0; !isDone; i++) {
      const askedMs = performance.now();
      // As a client that has one request after another under way.
      await new Promise((resolve) => setImmediate(resolve));
      await image.read(tables + (i % 1000) * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE));
      slowestMs = Math.max(slowestMs, performance.now() - askedMs);
    }
    await lookup;
    delay.disable();
    stalledMs.push(delay.max / 1e6);
    otherMs.push(slowestMs);
  }
  report(`hashing and sorting ${NAMES_IN_DIRECTORY} names`, hashingMs);
  report('first lookup among them, other requests under way (by the clock)', firstMs);
  report('longest event-loop delay meanwhile (by the clock)', stalledMs);
  report('slowest other request meanwhile (by the clock)', otherMs);
}

const parts: Readonly<Record<string, () => void | Promise<void>>> = {
  many: benchMany,
  terabytes: benchTerabytes,
  directory: benchLargeDirectory,
};

if (values.part !== undefined) {
  await parts[values.part]!();
} else {
  console.log('Times are of the processor unless the clock is named: the machine may have other work to do.');
  console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}; seed ${seed}`);
  for (const part of Object.keys(parts)) {
    console.log(`${part}:`);
    const flags = ['--expose-gc', '--import', 'tsx', fileURLToPath(import.meta.url), '--part', part];
    const options = ['--files', values.files, '--rounds', values.rounds, '--seed', values.seed];
    execFileSync(process.execPath, [...flags, ...options], { stdio: 'inherit' });
  }
}
