/** `kloset-nbd verify` as operators and their scripts run it. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCli } from '../support/cli.ts';
import { albumSnapshots, albumStore, cleanupAfterEach, copyOfStore, shortId } from '../support/fixtures.ts';

const cleanup = cleanupAfterEach();
const [oldest, newest] = albumSnapshots;

/** A copy of the album store, with a byte changed in the middle of its largest packfile: file contents. */
function damagedAlbum(): { store: string; packfile: string } {
  const store = copyOfStore(cleanup, albumStore);
  const files = readdirSync(join(store, 'packfiles'), { recursive: true, encoding: 'utf8' });
  const packfiles = files.filter((file) => /[0-9a-f]{64}$/.test(file)).map((file) => join(store, 'packfiles', file));
  const [largest] = packfiles.sort((a, b) => readFileSync(b).byteLength - readFileSync(a).byteLength);
  const bytes = readFileSync(largest!);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(largest!, bytes);
  return { store, packfile: largest!.slice(-64) };
}

test('a sound store: exit 0, a line for each snapshot', async () => {
  const { exitCode, stdout } = await runCli(['at', albumStore, 'verify', '--data']);
  expect(stdout).toMatch(
    new RegExp(`^${shortId(newest)}: sound \\(1007 entries, 982 files with 24.1 MiB\\)\n${shortId(oldest)}: sound`),
  );
  expect(exitCode).toBe(0);
});

test('a damaged chunk: exit 65, one line on standard error, every file it is in', async () => {
  const { store, packfile } = damagedAlbum();
  const text = await runCli(['verify', '--store', store, '--data', newest.id.slice(0, 6)]);
  expect(text.exitCode).toBe(65);
  expect(text.stderr.trim().split('\n').at(-1)).toBe(
    `kloset-nbd: Snapshot ${shortId(newest)} is damaged; what is affected is listed on standard output.`,
  );
  const json = await runCli(['verify', '--store', store, '--data', '--json', newest.id]);
  expect(json.exitCode).toBe(65);
  const report = JSON.parse(json.stdout);
  expect(report).toMatchObject({
    store,
    data: true,
    sound: false,
    snapshots: [{ snapshot: newest.id, sound: false, path: '/' }],
  });
  const { problems, problemCount } = report.snapshots[0];
  expect(problems.length).toBe(problemCount);
  for (const { kind, path, stored, message } of problems) {
    expect([kind, stored.packfile]).toEqual(['file', packfile]);
    expect(text.stdout).toContain(`  file ${path}, chunk `);
    expect(message).toMatch(/MAC does not match|damaged|content checksum|LZ4/i);
  }
  // What is not asked for is not read.
  expect((await runCli(['verify', '--store', store, newest.id])).exitCode).toBe(0);
  const elsewhere = `${newest.id}:/global`;
  expect((await runCli(['verify', '--store', store, '--data', elsewhere])).exitCode).toBe(0);
});

test('what is not there: exit 64', async () => {
  const { exitCode, stderr } = await runCli(['verify', '--store', albumStore, 'latest:/nowhere']);
  expect([exitCode, stderr]).toEqual([64, `kloset-nbd: Snapshot ${shortId(newest)} holds no /nowhere.\n`]);
});

test('a damaged state: exit 65, or with --ignore-damaged-states what the others list is verified', async () => {
  const store = copyOfStore(cleanup, albumStore);
  const state = join(store, 'states', newest.id.slice(0, 2), newest.id);
  const bytes = readFileSync(state);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(state, bytes);
  const refused = await runCli(['verify', '--store', store]);
  expect([refused.exitCode, refused.stdout]).toEqual([65, '']);
  expect(refused.stderr).toContain(`State ${newest.id} is damaged`);
  const ignored = await runCli(['verify', '--store', store, '--ignore-damaged-states']);
  expect(ignored.stderr).toContain(`State ${newest.id} is damaged: its MAC does not match its content. It is left out`);
  expect(ignored.stdout).toMatch(new RegExp(`^${shortId(oldest)}: sound`));
  expect(ignored.stdout).not.toContain(shortId(newest));
  expect(ignored.exitCode).toBe(0);
});
