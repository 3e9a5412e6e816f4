/** Data directories of PostgreSQL as trees, with those contents that decide what is read next. */
import { crc32c } from '../../src/core/crc32c.ts';
import { directory, file, type TreeNode } from './ext4-tree.ts';

/** pg_filenode.map with these pairs of OID and file number; `count` where it is to lie about them. */
export function relationMap(
  pairs: readonly (readonly [oid: number, file: number])[],
  { tablePairs = 62, littleEndian = true, count = pairs.length } = {},
): Uint8Array {
  const coveredBytes = 8 + tablePairs * 8;
  const map = new Uint8Array(tablePairs === 62 ? 512 : coveredBytes + 4);
  const view = new DataView(map.buffer);
  view.setUint32(0, 0x592717, littleEndian);
  view.setUint32(4, count, littleEndian);
  for (const [i, [oid, number]] of pairs.entries()) {
    view.setUint32(8 + i * 8, oid, littleEndian);
    view.setUint32(12 + i * 8, number, littleEndian);
  }
  view.setUint32(coveredBytes, (crc32c(0xffffffff, map.subarray(0, coveredBytes)) ^ 0xffffffff) >>> 0, littleEndian);
  return map;
}

/** Files by path, as a tree; `text` and bytes have their length, numbers are sizes. */
export function treeOf(files: Readonly<Record<string, number | string | Uint8Array | TreeNode>>): TreeNode {
  const below = new Map<string, Record<string, number | string | Uint8Array | TreeNode>>();
  const children: (readonly [string, TreeNode])[] = [];
  for (const [path, content] of Object.entries(files)) {
    const slash = path.indexOf('/');
    if (slash < 0) children.push([path, nodeOf(content)]);
    else below.set(path.slice(0, slash), { ...below.get(path.slice(0, slash)), [path.slice(slash + 1)]: content });
  }
  return directory([...children, ...[...below].map(([name, inside]) => [name, treeOf(inside)] as const)]);
}

function nodeOf(content: number | string | Uint8Array | TreeNode): TreeNode {
  if (typeof content === 'object' && 'type' in content) return content;
  return file(typeof content === 'number' ? content : Buffer.from(content).length);
}
