/**
 * Random trees put together at random places: the columns keep their contract, and the disk made of them shows each tree
 * at its place, judged by what each tree must look like alone, by an independent reader, and by e2fsck.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { entryName, entryTypes, type SnapshotTree } from '../../src/core/snapshot-tree.ts';
import { MiB } from '../../src/core/units.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { type ComposedPart, composeTrees } from '../../src/source/compose-tree.ts';
import { compareDevice, type Expected, expectTree } from '../support/ext4-expect.ts';
import { fsckRemarks, withTemporaryDirectory, writeImage } from '../support/ext4-image-file.ts';
import { Random, randomRoot } from '../support/ext4-random.ts';
import { makeTree, PatternContent } from '../support/ext4-tree.ts';
import { requires } from '../support/requires.ts';

const identity = { snapshotId: '5a'.repeat(32), createdSeconds: 1_750_000_000 };
const seeds = Array.from({ length: 24 }, (_, i) => i + 1);

function randomParts(random: Random): ComposedPart[] {
  const places = [['a/b/c', 'a/b/d', 'a/c'], ['pgdata'], ['x', 'm'], ['a', 'aa', 'b/a'], ['deep/er/and/deeper']];
  return random.pick(places).map((at) => {
    const tree = makeTree(randomRoot(random));
    return { tree, content: new PatternContent(tree), at };
  });
}

/** What the contract of SnapshotTree promises about order; one line for each breach. */
function breaches(tree: SnapshotTree): string[] {
  const found: string[] = [];
  let nextChild = 1;
  for (let entry = 0; entry < tree.length; entry++) {
    const count = tree.childCount[entry]!;
    if (count === 0) continue;
    if (tree.type[entry] !== entryTypes.directory) found.push(`${entry} has children and is no directory`);
    if (tree.firstChild[entry] !== nextChild) found.push(`children of ${entry} do not follow those before`);
    for (let child = nextChild; child < nextChild + count; child++) {
      if (tree.parent[child] !== entry) found.push(`${child} has another parent than ${entry}`);
      const sorted = child === nextChild || Buffer.compare(entryName(tree, child - 1), entryName(tree, child)) < 0;
      if (!sorted) found.push(`${child} is not in its place among its siblings`);
    }
    nextChild += count;
  }
  if (nextChild !== tree.length) found.push(`${tree.length - nextChild} entries are nobody's children`);
  if (tree.nameStart[tree.length] !== tree.nameBytes.length) found.push('names do not end where they should');
  for (const [entry, first] of tree.sameInodeAs) {
    if (first >= entry || tree.sameInodeAs.has(first)) found.push(`${entry} names ${first}, which is not the first`);
  }
  return found;
}

/** Every part's entries as they look alone, under its place; what was made comes from the composed tree. */
function expectParts(parts: readonly ComposedPart[], composed: SnapshotTree): Map<string, Expected> {
  const expected = expectTree(composed);
  for (const { tree, at } of parts) {
    for (const [path, alone] of expectTree(tree)) {
      const below = (name: string) => (name === '' ? at : `${at}/${name}`);
      const before = expected.get(below(path));
      if (before === undefined) throw new Error(`${below(path)} is missing`);
      // The filesystem's own lost+found counts where the root is, and only there.
      const links = path === '' ? before.links : alone.links;
      expected.set(below(path), { ...alone, links, firstPath: below(alone.firstPath) });
    }
  }
  return expected;
}

const need = requires('e2fsck');
describe.skipIf(need.missing)(need.title('random trees put together'), () => {
  test.each(seeds)('seed %i', async (seed) => {
    const parts = randomParts(new Random(seed));
    const { tree, content } = composeTrees(parts);
    expect(breaches(tree)).toEqual([]);
    const layout = planLayout(tree, { journalBlocks: 1024, free: { bytes: 5 * MiB } }, identity);
    const image = new Ext4Image(layout, content);
    expect(await compareDevice(image, expectParts(parts, tree))).toEqual([]);
    await withTemporaryDirectory(async (folder) => {
      const path = join(folder, 'image');
      await writeImage(image, path, { metadataOnly: true });
      expect(await fsckRemarks(path)).toEqual([]);
    });
  });
});

test('a tree out of order is noticed', () => {
  const { tree } = composeTrees(randomParts(new Random(3)));
  expect(
    breaches({ ...tree, parent: tree.parent.map((parent, entry) => (entry === 2 ? parent + 1 : parent)) }),
  ).not.toEqual([]);
  expect(breaches({ ...tree, firstChild: tree.firstChild.map((first) => first + 1) })).not.toEqual([]);
});
