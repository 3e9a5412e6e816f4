/**
 * Whole stores by somebody who can write MACs: in a plaintext store everybody can. Blobs are mutated before they are named,
 * so that the changes get past every check of integrity to what reads trees, lists and contents.
 */
import { createHash } from 'node:crypto';
import { entryTypes } from '../../src/core/snapshot-tree.ts';
import { resourceTypes } from '../../src/kloset/format.ts';
import { openStore } from '../support/kloset.ts';
import { seededRandom } from '../support/overlay-random.ts';
import { addSnapshot, DIRECTORY, type WrittenEntry } from '../support/snapshot-writer.ts';
import { StoreWriter } from '../support/store-writer.ts';
import type { FuzzTarget } from './fuzz.ts';
import { mutate } from './mutate.ts';

const content = [Buffer.from('some content'), Buffer.from('and more of it')];
const entries: WrittenEntry[] = [
  { path: '/', mode: DIRECTORY },
  { path: '/d', mode: DIRECTORY },
  { path: '/d/e', mode: DIRECTORY },
  ...['a', 'b', 'c', 'd', 'f'].map((name) => ({ path: `/d/${name}`, content, inode: 7, links: 2 })),
  { path: '/d/e/x', content, attributes: { 'user.x': 'value' } },
  { path: '/link', target: '../../d' },
];
/** Content read of one file, bytes: what a hostile entry claims beyond is for the reader to refuse. */
const READ_BYTES_MAX = 64 * 1024;

export const hostileStore: FuzzTarget = {
  name: 'hostile-store',
  // The input is where the changes come from, not what is parsed.
  samples: [Buffer.from('0123456789abcdef')],
  run: async (input) => {
    const random = seededRandom(createHash('sha256').update(input).digest().readUInt32LE());
    const store = new StoreWriter();
    const blob = store.blob.bind(store);
    const seen: Uint8Array[] = [];
    store.blob = (type, plain, options) => {
      seen.push(plain);
      if (!random.chance(0.06)) return blob(type, plain, options);
      const changed = mutate(
        type === resourceTypes.chunk ? [plain] : [plain, plain, seen[random.below(seen.length)]!],
        random,
      );
      return blob(type, changed, options);
    };
    addSnapshot(store, { entries, dirpacks: random.chance(0.8), importer: random.chance(0.5) ? 'fs' : 'tar' });
    await readAll(await store.finish());
  },
};

async function readAll(store: StoreWriter): Promise<void> {
  const opened = await openStore(store, { inThread: true });
  try {
    for (const { error } of opened.damaged) throw error;
    for (const header of opened.snapshots) {
      const source = await opened.source(header);
      for (let entry = 0; entry < source.tree.length; entry++) {
        if (source.tree.type[entry] !== entryTypes.file) continue;
        await source.read(entry, 0, new Uint8Array(Math.min(source.tree.sizeBytes[entry]!, READ_BYTES_MAX)));
      }
    }
  } finally {
    await opened.close();
  }
}
