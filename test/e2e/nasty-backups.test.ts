/**
 * Directories of everything that backups are rarely tried with, backed up with the real plakar and compared, entry by
 * entry, with what the kernel then shows: at first, and after a random write load. KLOSET_NBD_NASTY_SEEDS=7,8 tries others.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { mustRun, runCli, startServer } from '../support/cli.ts';
import { unmistaken } from '../support/ext4-expect.ts';
import { Random } from '../support/ext4-random.ts';
import { writeLoad } from '../support/ext4-write-load.ts';
import { cleanupAfterEach, projectRoot, temporaryFolder } from '../support/fixtures.ts';
import { differences, type ExpectedEntry, expectedOfFolder } from '../support/fixtures-manifest.ts';
import { attachDevice, fsckRemarks, mountDevice, mountNeeds } from '../support/mount.ts';
import { privatePlakarEnvironment } from '../support/plakar-server-real.ts';
import { commandPath, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const seeds = (process.env.KLOSET_NBD_NASTY_SEEDS ?? '1,2').split(',').map(Number);

/** Makes the tree of a seed and a store with a backup of it. */
async function backUp(seed: number): Promise<{ tree: string; store: string }> {
  const folder = temporaryFolder(cleanup);
  const [tree, store] = [join(folder, 'tree'), join(folder, 'store')];
  await mustRun(commandPath('python3'), [join(projectRoot, 'test/support/nasty-tree.py'), String(seed), tree]);
  const env = privatePlakarEnvironment(cleanup);
  await mustRun(commandPath('plakar'), ['at', store, 'create', '-plaintext'], { env });
  await mustRun(commandPath('plakar'), ['at', store, 'backup', '-no-progress', tree], { env });
  return { tree, store };
}

/** Paths, latin1, of which inspect says that plakar lost values of their attributes: it does that now and then. */
async function withoutValues(store: string, tree: string): Promise<ReadonlySet<string>> {
  const { stdout } = await runCli(['--store', store, 'inspect', 'latest:.', '--all', '--json']);
  const lost = (JSON.parse(stdout).notAsRecorded as { message: string; entries: Record<string, string | null>[] }[])
    .filter(({ message }) => message.startsWith('extended attributes whose value'))
    .flatMap(({ entries }) => entries)
    .map(({ path, pathHex }) => (path === null ? Buffer.from(pathHex!, 'hex') : Buffer.from(path!)).toString('latin1'));
  return new Set(lost.map((path) => path.slice(tree.length)));
}

/** With its time moved out of the years that e2fsck takes for others. */
function atShownTime(entry: ExpectedEntry): ExpectedEntry {
  const seconds = Math.floor(Number(entry.mtimeNs! / 1_000_000_000n));
  const shown = unmistaken(seconds);
  return shown === seconds ? entry : { ...entry, mtimeNs: BigInt(shown) * 1_000_000_000n };
}

/** By path as the write load wants it. */
function beforeLoad(expected: readonly ExpectedEntry[]) {
  const digits: Readonly<Record<string, number>> = { dir: 4, file: 8, symlink: 10 };
  const entries = expected.map(({ path, type, sameInodeAs }) => {
    const entry = { mode: (digits[type] ?? 0) * 4096, firstPath: sameInodeAs!.slice(1) };
    return [path.slice(1), entry] as const;
  });
  return new Map([['', { mode: 4 * 4096, firstPath: '' }] as const, ...entries]);
}

const need = requires(...mountNeeds, 'plakar', 'python3', 'getfattr');
describe.skipIf(need.missing)(need.title('a nasty directory, backed up and mounted'), () => {
  test.each(seeds)('seed %i', async (seed) => {
    const { tree, store } = await backUp(seed);
    const lost = await withoutValues(store, tree);
    const expected = (await expectedOfFolder(tree)).map(atShownTime).map((entry) => {
      const { attributes: _, ...others } = entry;
      return lost.has(entry.path) || lost.has(entry.sameInodeAs!) ? others : entry;
    });
    expect(expected.length).toBeGreaterThan(1700);
    const server = await startServer(cleanup, ['latest:.', '--store', store, '--free', '256M']);
    const device = await attachDevice(cleanup, server.uris[0]!);
    expect(await fsckRemarks(device.path)).toEqual([]);
    const fresh = await mountDevice(cleanup, device.path, { options: 'ro' });
    expect(await differences(fresh.folder, expected)).toEqual([]);
    await fresh.unmount();

    const written = await mountDevice(cleanup, device.path);
    const touched = await writeLoad(written.folder, beforeLoad(expected), new Random(seed));
    await written.unmount();
    expect(await fsckRemarks(device.path)).toEqual([]);
    const again = await mountDevice(cleanup, device.path);
    const wrong = await differences(
      again.folder,
      expected.filter(({ path }) => !touched.has(path.slice(1))),
    );
    // What the load made or changed is what is "too much".
    expect(wrong.filter((line) => !line.endsWith('should not be there'))).toEqual([]);
    await again.unmount();
    await device.detach();
  });
});
