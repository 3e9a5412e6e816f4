/** Damaged stores: a block is served right or not at all, and the log says what is damaged. */
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { type RunningServer, ServerEndedError, startServer } from '../support/cli.ts';
import { compareWithImage, copyToImage, tryNbdsh } from '../support/cli-clients.ts';
import { albumSnapshots, albumStore, cleanupAfterAll, cleanupAfterEach, copyOfStore } from '../support/fixtures.ts';
import { requires } from '../support/requires.ts';

const [, newest] = albumSnapshots;
/** Named by its id: the damage may take a newer snapshot out of sight, and `latest` would then mean another. */
const serveArguments = (store: string): readonly string[] => [newest.id, '--store', store, '--free', '16M'];

/** The files of a directory store, CONFIG first, then states and packfiles by name. */
function filesOf(store: string): readonly string[] {
  const below = readdirSync(store, { recursive: true, encoding: 'utf8' }).sort();
  return ['CONFIG', ...below.filter((path) => /^(states|packfiles)\/..\/[0-9a-f]{64}$/.test(path))];
}

function flipByte(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 1 << (offset % 8);
  writeFileSync(path, bytes);
}

/** As a store written by nobody who lies: each file with a byte in its first part, at its end and at places between. */
function placesToFlip(store: string): { file: string; offset: number }[] {
  return filesOf(store).flatMap((file) => {
    const { length } = readFileSync(join(store, file));
    // The golden ratio spreads any number of places evenly; the same ones in every run.
    const spread = Array.from({ length: 6 }, (_, index) => Math.floor(((index * 0.618034) % 1) * length));
    return [...new Set([0, length - 1, ...spread])].map((offset) => ({ file, offset }));
  });
}

const need = requires('nbdcopy', 'python3-libnbd');
describe.skipIf(need.missing)(need.title('a damaged store'), () => {
  const cleanup = cleanupAfterAll();
  const afterEachTest = cleanupAfterEach();
  let image: string;

  beforeAll(async () => {
    const server = await startServer(cleanup, serveArguments(albumStore));
    image = await copyToImage(cleanup, server.uris[0]!);
    await server.stop();
  });

  /** Serves `store` if that is possible; otherwise checks that the refusal is a clean one. */
  async function serveIfReadable(store: string): Promise<RunningServer | undefined> {
    try {
      return await startServer(afterEachTest, serveArguments(store));
    } catch (error) {
      if (!(error instanceof ServerEndedError)) throw error;
      const { exitCode, stderr } = error.result;
      expect([64, 65, 66, 78], stderr).toContain(exitCode);
      expect(stderr).not.toMatch(/^\s+at /m);
      return undefined;
    }
  }

  test('the comparison sees a wrong block', async () => {
    const server = await startServer(afterEachTest, serveArguments(albumStore));
    expect(await compareWithImage(server.uris[0]!, image)).toMatchObject({ wrong: [], unreadable: 0 });
    await tryNbdsh(server.uris[0]!, 'h.pwrite(b"x", 123456)');
    expect(await compareWithImage(server.uris[0]!, image)).toMatchObject({ wrong: [122880], unreadable: 0 });
  });

  const files = filesOf(albumStore);
  test.each(files)('a flipped byte anywhere in %s never gives a wrong byte', async (file) => {
    const noticed: string[] = [];
    for (const { offset } of placesToFlip(albumStore).filter((place) => place.file === file)) {
      const store = copyOfStore(afterEachTest, albumStore);
      flipByte(join(store, file), offset);
      const server = await serveIfReadable(store);
      if (server === undefined) {
        noticed.push('refused');
        continue;
      }
      const { wrong, unreadable } = await compareWithImage(server.uris[0]!, image);
      expect(wrong, `${file} at ${offset}`).toEqual([]);
      if (unreadable > 0) noticed.push('EIO');
      expect((await server.stop()).exitCode).toBe(0);
    }
    // States and CONFIG are read whole: no flip in them stays unseen. A packfile has parts this snapshot does not use.
    if (!file.startsWith('packfiles/'))
      expect(noticed).toHaveLength(placesToFlip(albumStore).filter((p) => p.file === file).length);
  });

  test('EIO comes with a line that names snapshot, file, chunk and packfile, and the rest is served', async () => {
    const { store, packfile } = storeWithDamagedContents();
    const server = await startServer(afterEachTest, serveArguments(store));
    const { wrong, unreadable, compared } = await compareWithImage(server.uris[0]!, image);
    expect(wrong).toEqual([]);
    expect(unreadable).toBeGreaterThan(0);
    expect(compared).toBeGreaterThan(unreadable);
    const line = await server.waitForLog((one) => one.level >= 50);
    const text = JSON.stringify(line);
    expect(text).toContain(newest.id.slice(0, 8));
    expect(text).toContain(packfile);
    expect(text).toMatch(/"\/[a-zA-Z_]/);
    expect(text).toMatch(/chunk/);
    expect((await server.stop()).exitCode).toBe(0);
  });

  test('a packfile cut short never gives a wrong byte', async () => {
    for (const file of files.filter((path) => path.startsWith('packfiles/'))) {
      const store = copyOfStore(afterEachTest, albumStore);
      truncateSync(join(store, file), Math.floor(readFileSync(join(store, file)).length / 2));
      const server = await serveIfReadable(store);
      if (server === undefined) continue;
      expect((await compareWithImage(server.uris[0]!, image)).wrong, file).toEqual([]);
      await server.stop();
    }
  });

  test('a packfile that vanishes under the server gives EIO, never a wrong byte', async () => {
    const store = copyOfStore(afterEachTest, albumStore);
    const server = await startServer(afterEachTest, serveArguments(store));
    for (const file of files.filter((path) => path.startsWith('packfiles/'))) truncateSync(join(store, file), 0);
    const { wrong, unreadable } = await compareWithImage(server.uris[0]!, image);
    expect(wrong).toEqual([]);
    expect(unreadable).toBeGreaterThan(0);
  });

  /** Flips bytes all over the middle of the largest packfile, which holds contents, until some are used and no metadata is hit. */
  function storeWithDamagedContents(): { store: string; packfile: string } {
    const store = copyOfStore(afterEachTest, albumStore);
    const packfiles = files.filter((path) => path.startsWith('packfiles/'));
    const largest = packfiles.reduce((a, b) =>
      readFileSync(join(store, a)).length >= readFileSync(join(store, b)).length ? a : b,
    );
    const { length } = readFileSync(join(store, largest));
    for (let offset = length * 0.3; offset < length * 0.5; offset += 1000)
      flipByte(join(store, largest), Math.floor(offset));
    return { store, packfile: basename(largest) };
  }
});
