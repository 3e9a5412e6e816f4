import { HttpStore } from '../../src/kloset/http-store.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { PtarHttpStore } from '../../src/kloset/ptar-http-store.ts';
import { PtarStore } from '../../src/kloset/ptar-store.ts';
import { cleanupAfterEach } from '../support/fixtures.ts';
import { startFileServer, startPlakarServerDouble } from '../support/plakar-server-double.ts';
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
