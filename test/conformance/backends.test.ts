import { describe, expect, it } from 'vitest';
import { mapConcurrently } from '../../src/core/concurrency.ts';
import type { Clock } from '../../src/kloset/clock.ts';
import { REQUEST_TIMEOUT_MS } from '../../src/kloset/fetch-limits.ts';
import { HttpStore } from '../../src/kloset/http-store.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { PtarHttpStore } from '../../src/kloset/ptar-http-store.ts';
import { PtarStore } from '../../src/kloset/ptar-store.ts';
import { ReadAheadStore } from '../../src/kloset/read-ahead-store.ts';
import { type RemoteStore, TransientStoreError } from '../../src/kloset/remote-store.ts';
import { RetryingStore } from '../../src/kloset/retrying-store.ts';
import { openResolvedStore } from '../../src/kloset/store-location.ts';
import { FaultStore, MemoryStore } from '../support/fault-store.ts';
import { cleanupAfterAll, cleanupAfterEach, copyOfStore } from '../support/fixtures.ts';
import { startFileServer, startPlakarServerDouble } from '../support/plakar-server-double.ts';
import { startRealPlakarServer } from '../support/plakar-server-real.ts';
import { findCommand, requires } from '../support/requires.ts';
import { fillBucket, s3StoreAt, startS3Server } from '../support/s3-server.ts';
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

/** Fails every third call in a way that passes; time-outs never come, and pauses take no time. */
function faulty(store: RemoteStore): RetryingStore {
  let calls = 0;
  const flaky = new FaultStore(store, () => (++calls % 3 === 0 ? new TransientStoreError('503') : undefined));
  const hasty: Clock = {
    now: () => 0,
    after: (delayMs, action) => {
      if (delayMs < REQUEST_TIMEOUT_MS) setImmediate(action);
      return () => undefined;
    },
  };
  return new RetryingStore(flaky, { clock: hasty });
}

runStoreSuite({
  name: 'RetryingStore over failures',
  content: directory,
  open: async () => faulty(new MemoryStore(directory)),
});

for (const windowBytes of [512, 64 * 1024]) {
  runStoreSuite({
    name: `ReadAheadStore with windows of ${windowBytes} bytes over failures`,
    content: directory,
    open: async () => new ReadAheadStore(faulty(new MemoryStore(directory)), { windowBytes }),
  });
}

runStoreSuite({
  name: 'What a location of plakar server opens',
  content: directory,
  open: async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    return openResolvedStore({ location: server.url, options: {} }, { environment: {} });
  },
});

runStoreSuite({
  name: 'What a location of an archive on a web server opens',
  content: archive,
  open: async () => {
    const server = await startFileServer(cleanup, sampleArchive);
    return openResolvedStore({ location: `ptar+${server.url}/a`, options: {} }, { environment: {} });
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

const needS3 = requires('s3-server');
describe.skipIf(needS3.missing)(needS3.title('a real S3 server'), () => {
  const cleanupAtEnd = cleanupAfterAll();
  let server: ReturnType<typeof startS3Server> | undefined;
  const start = () => {
    server ??= startS3Server(cleanupAtEnd).then(async (started) => {
      await fillBucket(started, 'backups', 'some/where/', sampleDirectory);
      return started;
    });
    return server;
  };

  runStoreSuite({
    name: 'S3Store',
    content: directory,
    open: async () => s3StoreAt(await start(), '/backups/some/where'),
  });

  runStoreSuite({
    name: 'What a location opens',
    content: directory,
    open: async () => {
      const { endpoint, accessKey, secretKey } = await start();
      const options = { use_tls: 'false', access_key: accessKey, secret_access_key: secretKey };
      return openResolvedStore({ location: `s3://${endpoint}/backups/some/where/`, options }, { environment: {} });
    },
  });

  // moto's server takes any key.
  if (findCommand('versitygw') !== undefined) {
    it('refuses wrong keys at once, and names neither', async () => {
      const store = s3StoreAt(await start(), '/backups', { accessKey: 'testkey', secretKey: 'hidden' });
      cleanup.add(() => store.close());
      await expect(store.readConfig()).rejects.toMatchObject({ name: 'UserError', exitCode: 66 });
      await expect(store.readConfig()).rejects.not.toThrow(/hidden|testkey/);
    });
  }

  it('lists neither frozen copies nor strangers, and names what exists only frozen', async () => {
    const started = await start();
    await started.client.makeBucket('frozen');
    const [id, packfile] = [...directory.packfiles][0]!;
    const key = `packfiles/${id.slice(0, 2)}/${id}.frozen`;
    for (const name of [key, `packfiles/${id}`, 'packfiles/tmp.123', 'CONFIG.frozen']) {
      await started.client.putObject('frozen', name, packfile);
    }
    const store = s3StoreAt(started, '/frozen');
    cleanup.add(() => store.close());
    expect(await store.list('packfiles')).toEqual([]);
    await expect(store.readPackfile(id, 0, new Uint8Array(1))).rejects.toThrow(/cold storage/);
    await expect(store.readConfig()).rejects.toMatchObject({ name: 'UserError', exitCode: 66 });
  });

  it('lists more names than one answer holds', async () => {
    const started = await start();
    await started.client.makeBucket('many');
    const ids = Array.from({ length: 1100 }, (_, index) => index.toString(16).padStart(64, '0'));
    await mapConcurrently(ids, 16, (id) => started.client.putObject('many', `states/00/${id}`, Buffer.alloc(1)));
    const store = s3StoreAt(started, '/many');
    cleanup.add(() => store.close());
    expect(await store.list('states')).toEqual(ids);
  });
});
