/**
 * Whether the order of files on the disk matters to PostgreSQL: requests and bytes that a kernel asks of the server while
 * it mounts, while PostgreSQL starts, and for the first query, with files in plain path order and in one made for
 * PostgreSQL: start-up files, then catalogs and other small files, then WAL, then large relations.
 *
 *   npm run bench:locality [-- --store DIRECTORY --snapshot latest --rounds 3 --query 'select count(*) from pg_class']
 *
 * The order stays breadth first, as the layout needs it: what is sorted are directories and the names within each, which
 * moves files' data and inodes alike. Needs root, nbdfuse, loop devices and PostgreSQL 15. Every round attaches the disk
 * anew, so that no cache of the kernel has anything of it; the loop device reads past the FUSE file's own cache.
 */
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { BlockDevice } from '../src/core/device.ts';
import { entryName, entryTypes, type SnapshotTree } from '../src/core/snapshot-tree.ts';
import { BLOCK_SIZE, formatBytes, KiB, MiB } from '../src/core/units.ts';
import { openMemoryOverlay } from '../src/device/memory-overlay.ts';
import { OpenStore } from '../src/exports/open-store.ts';
import { Ext4Image } from '../src/ext4/image.ts';
import { planLayout } from '../src/ext4/plan.ts';
import { deriveKey } from '../src/kloset/codec/key-derivation.ts';
import { parseSelector, selectSnapshot } from '../src/kloset/selector.ts';
import type { KlosetSource } from '../src/source/kloset-source.ts';
import { makeTree, type TreeNode } from '../test/support/ext4-tree.ts';
import { Cleanup, projectRoot } from '../test/support/fixtures.ts';
import { storeAt } from '../test/support/kloset.ts';
import { attachDevice, mountDevice } from '../test/support/mount.ts';
import { startServer } from '../test/support/nbd-fixture.ts';
import { postgresUser, startPostgres } from '../test/support/postgres.ts';

const { values } = parseArgs({
  options: {
    store: { type: 'string', default: join(projectRoot, 'fixtures/stores/album') },
    snapshot: { type: 'string', default: 'latest' },
    rounds: { type: 'string', default: '3' },
    query: { type: 'string', default: 'select count(*) from pg_class' },
  },
});

/** Relations from here on are "large": their files come last. */
const LARGE_BYTES = 512 * KiB;
const steps = ['mount', 'start', 'first query'] as const;
type Step = (typeof steps)[number];

interface Tally {
  requests: number;
  bytes: number;
  /** Blocks asked for, each once. */
  readonly blocks: Set<number>;
  /** Reads that begin where none before ended: what a spinning disk, or a cache of stretches, would seek for. */
  jumps: number;
}

/** Counts what is read of a device, under the step that is on. */
class CountingDevice {
  step: Step = 'mount';
  readonly tallies = new Map<Step, Tally>(
    steps.map((step) => [step, { requests: 0, bytes: 0, blocks: new Set(), jumps: 0 }]),
  );
  #expected = -1;

  count(offset: number, length: number): void {
    const tally = this.tallies.get(this.step)!;
    tally.requests++;
    tally.bytes += length;
    if (offset !== this.#expected) tally.jumps++;
    this.#expected = offset + length;
    for (let block = Math.floor(offset / BLOCK_SIZE); block * BLOCK_SIZE < offset + length; block++)
      tally.blocks.add(block);
  }

  over(device: BlockDevice): BlockDevice {
    return {
      sizeBytes: device.sizeBytes,
      supports: device.supports,
      read: (offset, target) => {
        this.count(offset, target.length);
        return device.read(offset, target);
      },
      write: (offset, source, options) => device.write(offset, source, options),
      writeZeroes: (range, options) => device.writeZeroes(range, options),
      trim: (range, options) => device.trim(range, options),
      flush: () => device.flush(),
      close: () => device.close(),
    };
  }
}

type Order = (tree: SnapshotTree, entry: number) => string;

/** Ranks within a directory; equal ones stay in the order of their names. */
const orders: Readonly<Record<string, Order>> = {
  path: () => '',
  postgres: (tree, entry) => {
    const name = Buffer.from(entryName(tree, entry)).toString();
    if (tree.type[entry] === entryTypes.directory) {
      if (name === 'pg_wal') return '2';
      return name === 'base' ? '3' : '1';
    }
    if (tree.sizeBytes[entry]! >= LARGE_BYTES) return '3';
    // Catalogs have numbers below 16384; what is no relation is read when a database is opened.
    const isRelation = /^\d+/.test(name);
    return isRelation && Number.parseInt(name, 10) >= 16_384 ? '2' : '1';
  },
};

/** The same tree with every directory's children in another order, and for each entry which one of the former it is. */
function reordered(tree: SnapshotTree, order: Order): { tree: SnapshotTree; former: number[] } {
  const former: number[] = [];
  const nodeOf = (entry: number): TreeNode => {
    const first = tree.firstChild[entry]!;
    const children = Array.from({ length: tree.childCount[entry]! }, (_, i) => first + i);
    const linked = tree.sameInodeAs.get(entry);
    const hasFurtherNames = [...tree.sameInodeAs.values()].includes(entry);
    return {
      type: (Object.keys(entryTypes) as (keyof typeof entryTypes)[]).find(
        (type) => entryTypes[type] === tree.type[entry],
      )!,
      mode: tree.mode[entry]!,
      uid: tree.uid[entry]!,
      gid: tree.gid[entry]!,
      mtime: [tree.mtimeSeconds[entry]!, tree.mtimeNanoseconds[entry]!],
      sizeBytes: tree.sizeBytes[entry]!,
      ...(tree.linkTarget.has(entry) ? { target: tree.linkTarget.get(entry)! } : {}),
      ...(linked !== undefined || hasFurtherNames ? { link: `${linked ?? entry}` } : {}),
      // The rank goes before the name for sorting, and is taken off below.
      children: children.map((child) => [ranked(tree, child, order), nodeOf(child)] as const),
    };
  };
  const sorted = makeTree(nodeOf(0));
  // Breadth first again, to know who is who.
  const queue = [0];
  for (let at = 0; at < queue.length; at++) {
    const entry = queue[at]!;
    former.push(entry);
    const first = tree.firstChild[entry]!;
    const children = Array.from({ length: tree.childCount[entry]! }, (_, i) => first + i);
    queue.push(...children.sort((a, b) => Buffer.compare(ranked(tree, a, order), ranked(tree, b, order))));
  }
  return { tree: withFormerNames(sorted, tree, former), former };
}

function ranked(tree: SnapshotTree, entry: number, order: Order): Buffer {
  return Buffer.concat([Buffer.from(order(tree, entry)), entryName(tree, entry)]);
}

function withFormerNames(sorted: SnapshotTree, tree: SnapshotTree, former: readonly number[]): SnapshotTree {
  const names = former.map((entry) => entryName(tree, entry));
  const nameStart = new Float64Array(names.length + 1);
  for (const [i, name] of names.entries()) nameStart[i + 1] = nameStart[i]! + name.length;
  return { ...sorted, nameBytes: Buffer.concat(names), nameStart };
}

async function round(source: KlosetSource, order: Order): Promise<CountingDevice> {
  const cleanup = new Cleanup();
  try {
    const { tree, former } = reordered(source.tree, order);
    const identity = { snapshotId: source.snapshotId, createdSeconds: source.createdSeconds };
    const layout = planLayout(tree, { owner: { ...postgresUser() } }, identity);
    const image = new Ext4Image(layout, {
      read: (entry, offset, target) => source.read(former[entry]!, offset, target),
    });
    const overlay = await openMemoryOverlay(image);
    cleanup.add(() => overlay.close());
    const counting = new CountingDevice();
    const server = await startServer({ disk: { device: counting.over(overlay) } });
    cleanup.add(() => server.close());
    const device = await attachDevice(cleanup, server.tcp, { directIo: true });
    // What attaching reads is not the mount's.
    const untilAttached = { ...counting.tallies.get('mount')! };
    const mounted = await mountDevice(cleanup, device.path, { options: 'noatime' });
    counting.tallies.get('mount')!.requests -= untilAttached.requests;
    counting.tallies.get('mount')!.bytes -= untilAttached.bytes;
    counting.tallies.get('mount')!.jumps -= untilAttached.jumps;
    counting.step = 'start';
    const postgres = await startPostgres(cleanup, mounted.folder);
    counting.step = 'first query';
    await postgres.query(values.query);
    await postgres.stop();
    await mounted.unmount();
    await device.detach();
    return counting;
  } finally {
    await cleanup.run();
  }
}

console.log(`machine: ${os.cpus()[0]?.model} x ${os.cpus().length}; node ${process.version}; linux ${os.release()}`);
console.log(`store ${values.store}, snapshot ${values.snapshot}; first query: ${values.query}`);
const store = await OpenStore.open({
  store: storeAt(values.store),
  keys: { passphrase: async () => Buffer.alloc(0), deriveKey },
  cacheBytesMax: 256 * MiB,
  inflightBytesMax: 128 * MiB,
});
try {
  const header = selectSnapshot(store.snapshots, parseSelector(values.snapshot));
  const source = await store.openSource(header, '/');
  console.log(`${source.tree.length} entries`);
  for (let i = 0; i < Number(values.rounds); i++) {
    for (const [name, order] of Object.entries(orders)) {
      const { tallies } = await round(source, order);
      for (const [step, { requests, bytes, jumps, blocks }] of tallies) {
        console.log(
          `round ${i + 1}  ${name.padEnd(8)}  ${step.padEnd(11)}  ${String(requests).padStart(5)} requests  ` +
            `${formatBytes(bytes).padStart(10)}  ${String(jumps).padStart(5)} jumps  ${String(blocks.size).padStart(6)} blocks`,
        );
      }
    }
  }
} finally {
  await store.close();
}
