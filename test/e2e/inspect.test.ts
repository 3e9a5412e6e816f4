/** What the commands that make or describe a disk say, and that what is served is what they say. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli, ServerEndedError, startServer } from '../support/cli.ts';
import { copyToImage, describeExport, listExports, sha256OfExport } from '../support/cli-clients.ts';
import { debugfs, fsckRemarks } from '../support/ext4-image-file.ts';
import {
  albumSnapshots,
  albumStore,
  cleanupAfterEach,
  projectRoot,
  storePath,
  temporaryFolder,
} from '../support/fixtures.ts';
import { requires } from '../support/requires.ts';

const [before, after] = albumSnapshots;
const cleanup = cleanupAfterEach();
const album = ['--store', albumStore];
const plain = ['--store', storePath('plain')];

describe('inspect', () => {
  test('tells what a snapshot holds, what is not shown as recorded, and which symlinks leave it', async () => {
    const { stdout, exitCode } = await runCli([...plain, 'inspect', 'latest']);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('60 directories, 73 files, 8 symlinks, 1 fifo, 1 socket');
    expect(stdout).toContain('(2, first: /srv/fx/meta/modes/blk-7-200)');
    expect(stdout).toContain('/srv/fx/meta/links/abs -> /etc/hostname');
  });

  test('lists all that is not as recorded where that is asked for', async () => {
    const { stdout } = await runCli([...plain, 'inspect', 'latest', '--all']);
    expect(stdout).toMatch(
      /record device numbers \(2\)\n {4}\/srv\/fx\/meta\/modes\/blk-7-200\n {4}\/srv\/fx\/meta\/modes\/\S+\n/,
    );
    const { notAsRecorded } = JSON.parse((await runCli([...plain, 'inspect', 'latest', '--all', '--json'])).stdout);
    for (const { count, entries } of notAsRecorded) expect(entries).toHaveLength(count);
    expect(notAsRecorded.map(({ example }: { example: string }) => example)).toContain('/srv/fx/meta/modes/blk-7-200');
  });

  test('is JSON for programs; a directory is looked at as if it were all there is', async () => {
    const { stdout } = await runCli([...plain, 'inspect', 'latest:/srv/fx/meta/links', '--json', '--all']);
    const said = JSON.parse(stdout);
    expect(said).toMatchObject({ path: '/srv/fx/meta/links', leavingLinkCount: 3, notAsRecorded: [] });
    const links = said.leavingLinks.map(({ path, reason }: { path: string; reason: string }) => [path, reason]);
    expect(links).toContainEqual(['/abs', 'absolute']);
    expect(links.filter(([, reason]: string[]) => reason === 'climbs')).toHaveLength(2);
    expect(said.entries.directory).toBeLessThan(60);
  });

  test.each([
    [['inspect'], 64],
    [['inspect', 'latest:/no/such'], 64],
  ])('%j exits %i', async (args, code) => {
    const { exitCode, stdout, stderr } = await runCli([...plain, ...args]);
    expect(exitCode, stderr).toBe(code);
    expect(stdout).toBe('');
  });
});

interface Golden {
  /** Ascending by layout version. */
  readonly versions: readonly {
    readonly layoutVersion: number;
    readonly disks: readonly {
      store: string;
      snapshots: readonly string[];
      into?: string;
      sha256: string;
      treeRoot: string;
    }[];
  }[];
}
const golden: Golden = JSON.parse(readFileSync(join(projectRoot, 'fixtures/digests.json'), 'utf8'));

describe('digest', () => {
  test('prints the digests that are on record', async () => {
    const { stdout, stderr } = await runCli([...album, 'digest', after.id]);
    const recorded = golden.versions.at(-1)?.disks.find(({ snapshots: [id] }) => id === after.id);
    expect(stdout, stderr).toBe(`sha256 ${recorded?.sha256}\ntree   ${recorded?.treeRoot}\nbytes  1183485952\n`);
  });

  test('knows the layouts of older overlays', async () => {
    const { stdout } = await runCli([...plain, 'digest', 'latest', '--layout-version', '1', '--tree-only']);
    const recorded = golden.versions[0]?.disks.find(({ store }) => store === 'plain');
    expect(stdout).toContain(`tree   ${recorded?.treeRoot}\n`);
    const unknown = await runCli([...plain, 'digest', 'latest', '--layout-version', '99']);
    expect([unknown.exitCode, unknown.stderr]).toEqual([78, expect.stringContaining('layout version 99')]);
  });

  test.each([
    [['latest', 'tag:before'], 'latest=NAME'],
    [['latest', '--mode-mask', '999'], '--mode-mask 999'],
    [['latest', '--size', '1G', '--free', '1G'], 'mutually exclusive'],
  ])('%j is refused', async (args, text) => {
    const { exitCode, stderr, stdout } = await runCli([...album, 'digest', ...args]);
    expect(stderr).toContain(text);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect([exitCode, stdout]).toEqual([64, '']);
  });
});

const needCopy = requires('nbdcopy', 'nbdinfo');
describe.skipIf(needCopy.missing)(needCopy.title('what is served'), () => {
  test('is what digest says, below a directory as side by side', async () => {
    const layout = ['--free', '32M', '--label', 'golden', '--mode-mask', '0700', '--inodes', '9'];
    for (const what of [
      [`${before.id}:/base=a/old`, 'latest:/global=b'],
      ['latest:/global', '--into', 'pgdata'],
    ]) {
      const server = await startServer(cleanup, [...album, ...what, ...layout]);
      const { stdout } = await runCli([...album, 'digest', ...what, ...layout, '--json']);
      expect(JSON.parse(stdout).sha256).toBe(await sha256OfExport(server.uris[0]!));
      await server.stop();
    }
  });
});

const needJudges = requires('nbdcopy', 'nbdinfo', 'e2fsck', 'debugfs');
describe.skipIf(needJudges.missing)(needJudges.title('snapshots side by side'), () => {
  test('stand in directories with their own attributes, in a filesystem without a remark', async () => {
    const { uris } = await startServer(cleanup, [
      ...album,
      '--free',
      '32M',
      'tag:before=monday',
      'tag:after=x/tuesday',
    ]);
    expect((await listExports(uris[0]!))[0]?.['export-name']).toBe('tag:before=monday tag:after=x/tuesday');
    const image = await copyToImage(cleanup, uris[0]!);
    expect(await fsckRemarks(image)).toEqual([]);
    const top = await debugfs(image, 'ls -p /');
    expect(top).toMatch(/\/040755\/\d+\/\d+\/x\//);
    expect(top).toMatch(/\/040700\/\d+\/\d+\/monday\//);
    expect(await debugfs(image, 'ls -p /monday')).toMatch(/PG_VERSION/);
    const below = await debugfs(image, 'ls -p /x/tuesday');
    expect(below).toMatch(/PG_VERSION/);
    expect(below).not.toMatch(/lost\+found/);
  });
});

const needInfo = requires('nbdinfo', 'flock');
describe.skipIf(needInfo.missing)(needInfo.title('an overlay of a composed disk'), () => {
  test('is opened again as it was, and refused for another composition', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const serve = (...args: string[]) =>
      startServer(cleanup, [...album, '--free', '32M', '--overlay', overlay, ...args]);
    const first = await serve('latest=a', 'tag:before=b');
    const size = (await describeExport(first.uris[0]!))['export-size'];
    await first.stop();
    const again = await serve('latest=a', 'tag:before=b');
    expect((await describeExport(again.uris[0]!))['export-size']).toBe(size);
    await again.stop();
    await expect(serve('latest=a', 'tag:before=b', '--into', 'c')).rejects.toThrow(ServerEndedError);
    await expect(serve('latest=a', 'tag:before=b', '--mode-mask', '0700')).rejects.toThrow(/modeMask/);
  });
});
