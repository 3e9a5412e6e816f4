/** A random write load on a mounted tree: overwrites, appends, truncations, new files, renames, removals. */
import { lchown, mkdir, open, rename, rm, truncate, writeFile } from 'node:fs/promises';
import type { Expected } from './ext4-expect.ts';
import type { Random } from './ext4-random.ts';

const OPERATIONS = 150;
const FILE = 8;
const DIRECTORY = 4;

/** What the load needs to know of every entry, by its path below the root, latin1; the root as ''. */
type Before = ReadonlyMap<string, Pick<Expected, 'mode' | 'firstPath'>>;

/** Returns the paths that are not as they were, directories with another time included. */
export async function writeLoad(folder: string, expected: Before, random: Random): Promise<Set<string>> {
  const touched = new Set<string>(['']);
  const at = (path: string) => Buffer.from(`${folder}/${path}`, 'latin1');
  const own = `kloset test ${random.integer(0, 999_999)}`;
  await mkdir(`${folder}/${own}`);
  // New names in the snapshot's own directories, so that leaves of hashed ones fill up and split.
  const directories = [...expected].filter(([, { mode }]) => mode >> 12 === DIRECTORY).map(([path]) => path);
  const files = [...expected].filter(([, { mode }]) => mode >> 12 === FILE).map(([path]) => path);
  for (let i = 0; i < OPERATIONS; i++) {
    const parent = random.pick(directories);
    touched.add(parent);
    await writeFile(at(`${parent}/${own} ${i}`), random.bytes(random.integer(0, 20_000)));
    const path = files.length > 0 ? random.pick(files) : undefined;
    if (path === undefined || touched.has(path)) continue;
    await changeFile(random, { path, own: `${folder}/${own}/${i}`, at }, touched, expected);
  }
  await lchown(folder, 12, 34);
  return touched;
}

async function changeFile(
  random: Random,
  { path, own, at }: { path: string; own: string; at: (path: string) => Buffer },
  touched: Set<string>,
  expected: Before,
): Promise<void> {
  // Its other names change with it.
  const { firstPath } = expected.get(path)!;
  for (const [other, entry] of expected) if (entry.firstPath === firstPath) touched.add(other);
  const parent = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '';
  const operation = random.integer(0, 4);
  if (operation === 0) {
    await rename(at(path), own);
    touched.add(parent);
  } else if (operation === 1) {
    await rm(at(path));
    touched.add(parent);
  } else if (operation === 2) {
    await truncate(at(path), random.integer(0, 100_000));
  } else {
    const output = await open(at(path), operation === 3 ? 'a' : 'r+');
    await output.write(
      random.bytes(random.integer(1, 9000)),
      0,
      null,
      operation === 3 ? null : random.integer(0, 9000),
    );
    await output.close();
  }
}
