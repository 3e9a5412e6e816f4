/** Trees of millions of files, made as columns: no object an entry. */
import { entryTypes, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import { Random } from './ext4-random.ts';

/** So many do not fit one block: directories are hashed. Names have 12 to 36 bytes, 24 on average. */
export const FILES_PER_DIRECTORY = 200;

export interface GeneratedTree {
  readonly seed: number;
  /** All of them, the root included. */
  readonly entries: number;
  readonly directories: number;
  /** Bytes of file number `file`. */
  sizeOf(file: number): number;
}

/** A root, `directories` below it, and the files spread evenly over those. */
export function generateTree({ seed, entries, directories, sizeOf }: GeneratedTree): SnapshotTree {
  const random = new Random(seed);
  const fileCount = entries - directories - 1;
  const columns = {
    length: entries,
    type: new Uint8Array(entries).fill(entryTypes.file),
    mode: new Uint16Array(entries).fill(0o644),
    uid: new Float64Array(entries).fill(26),
    gid: new Float64Array(entries).fill(26),
    sizeBytes: new Float64Array(entries),
    mtimeSeconds: new Float64Array(entries).fill(1_700_000_000),
    mtimeNanoseconds: new Uint32Array(entries),
    parent: new Uint32Array(entries),
    firstChild: new Uint32Array(entries),
    childCount: new Uint32Array(entries),
    nameStart: new Float64Array(entries + 1),
  };
  const names = Buffer.alloc(entries * 36);
  let used = 0;
  const name = (entry: number, number: number) => {
    used += names.write(`${String(number).padStart(10, '0')}-`, used, 'latin1');
    for (let i = random.integer(1, 25); i > 0; i--) names[used++] = random.integer(97, 122);
    columns.nameStart[entry + 1] = used;
  };
  columns.type.fill(entryTypes.directory, 0, directories + 1);
  columns.firstChild[0] = 1;
  columns.childCount[0] = directories;
  let child = directories + 1;
  for (let i = 0; i < directories; i++) {
    name(1 + i, i);
    const count = Math.floor(((i + 1) * fileCount) / directories) - Math.floor((i * fileCount) / directories);
    columns.firstChild[1 + i] = child;
    columns.childCount[1 + i] = count;
    columns.parent.fill(1 + i, child, child + count);
    child += count;
  }
  for (let i = 0; i < fileCount; i++) {
    const entry = directories + 1 + i;
    name(entry, i);
    columns.sizeBytes[entry] = sizeOf(i);
  }
  const none = new Map<number, never>();
  return {
    ...columns,
    // What is not written to takes no memory.
    nameBytes: names.subarray(0, used),
    sameInodeAs: none,
    linkTarget: none,
    attributes: none,
  };
}

/** A million files of up to 9000 bytes. */
export function millionFiles(): SnapshotTree {
  const directories = 1_000_000 / FILES_PER_DIRECTORY;
  return generateTree({ seed: 1, entries: 1_000_000 + directories + 1, directories, sizeOf: (i) => i % 9000 });
}

/** That many TiB in 10,000 files. */
export function terabytesOfFiles(tebibytes: number): SnapshotTree {
  const each = Math.floor((tebibytes * 2 ** 40) / 10_000);
  return generateTree({ seed: 2, entries: 10_011, directories: 10, sizeOf: (i) => each - i });
}
