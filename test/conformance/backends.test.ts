import { describe, expect, it } from 'vitest';
import { HttpStore } from '../../src/kloset/http-store.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { PtarHttpStore } from '../../src/kloset/ptar-http-store.ts';
import { PtarStore } from '../../src/kloset/ptar-store.ts';
import { cleanupAfterAll, cleanupAfterEach, copyOfStore } from '../support/fixtures.ts';
import { startFileServer, startPlakarServerDouble } from '../support/plakar-server-double.ts';
import { startRealPlakarServer } from '../support/plakar-server-real.ts';
import { requires } from '../support/requires.ts';
import { contentOfArchive, contentOfDirectory, sampleArchive, sampleDirectory } from '../support/store-content.ts';
import { runStoreSuite } from './store-suite.ts';

const cleanup = cleanupAfterEach();
const directory = contentOfDirectory(sampleDirectory);
const archive = contentOfArchive(sampleArchive);
const overNetwork = { verifyCertificate: true, connectionsMax: 8, stallTimeoutMs: 30_000 };

runStoreSuite({ name: 'LocalStore', content: directory, open: async () => new LocalStore(sampleDirectory) });
runStoreSuite({ name: 'PtarStore', content: archive, open: async () => new PtarStore(sampleArchive) });

runStoreSuite({
  name: 'HttpStore before a double of plakar server',
  content: directory,
  open: async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    return new HttpStore({ ...overNetwork, url: new URL(server.url) });
  },
});

runStoreSuite({
  name: 'PtarHttpStore',
  content: archive,
  open: async () => {
    const server = await startFileServer(cleanup, sampleArchive);
    return new PtarHttpStore({ ...overNetwork, url: new URL(`${server.url}/backups/archive.ptar`) });
  },
});

const needPlakar = requires('plakar');
describe.skipIf(needPlakar.missing)(needPlakar.title('the real plakar server'), () => {
  const cleanupAtEnd = cleanupAfterAll();
  let server: ReturnType<typeof startRealPlakarServer> | undefined;
  const open = async () => {
    server ??= startRealPlakarServer(cleanupAtEnd, copyOfStore(cleanupAtEnd, sampleDirectory));
    return new HttpStore({ ...overNetwork, url: new URL((await server).url) });
  };

  runStoreSuite({ name: 'HttpStore', content: directory, open });

  it('goes on being read after it was started again', async () => {
    const store = await open();
    cleanup.add(() => store.close());
    await store.readConfig();
    const [id, packfile] = [...directory.packfiles][0]!;
    const target = Buffer.alloc(100);
    await (await server)?.restart();
    await store.readPackfile(id, 50, target);
    expect(target).toEqual(packfile.subarray(50, 150));
    await (await server)?.restart();
    expect(await store.list('states')).toEqual([...directory.states.keys()]);
  });
});
