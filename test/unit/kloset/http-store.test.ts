import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError, UserError } from '../../../src/core/errors.ts';
import { parseRetryAfter } from '../../../src/kloset/http-client.ts';
import { HttpStore, parseListing } from '../../../src/kloset/http-store.ts';
import { MissingResourceError, TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { cleanupAfterEach } from '../../support/fixtures.ts';
import { startPlakarServerDouble, startTestServer, type TestServer } from '../../support/plakar-server-double.ts';
import { contentOfDirectory, sampleDirectory } from '../../support/store-content.ts';

const cleanup = cleanupAfterEach();
const content = contentOfDirectory(sampleDirectory);
const [packfileId, packfile] = [...content.packfiles][0]!;

function storeAt(url: string, options: { authToken?: string; stallTimeoutMs?: number } = {}): HttpStore {
  const store = new HttpStore({
    url: new URL(url),
    verifyCertificate: true,
    connectionsMax: 4,
    stallTimeoutMs: 30_000,
    ...options,
  });
  cleanup.add(() => store.close());
  return store;
}

async function readAt(store: HttpStore, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length);
  await store.readPackfile(packfileId, offset, target);
  return target;
}

/** A store whose server gives `answer` to the next request. */
async function withAnswer(answer: TestServer['interceptors'][number]): Promise<HttpStore> {
  const server = await startPlakarServerDouble(cleanup, sampleDirectory);
  const store = storeAt(server.url);
  await store.readConfig();
  server.interceptors.push(answer);
  return store;
}

describe('HttpStore', () => {
  it('asks for ranges with the end excluded, by GET only', async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    const store = storeAt(server.url);
    await store.readConfig();
    await store.list('states');
    expect(await readAt(store, 100, 50)).toEqual(packfile.subarray(100, 150));
    expect(server.requests).toEqual([
      'GET /',
      'GET /resources/states',
      `GET /resources/packfiles/${packfileId} bytes=100-150`,
    ]);
  });

  it('does not ask for a range of no bytes', async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    await storeAt(server.url).readPackfile(packfileId, 7, new Uint8Array(0));
    expect(server.requests).toEqual([]);
  });

  it('asks for the root once more where the server was started again', async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    const store = storeAt(server.url);
    await store.readConfig();
    await server.close();
    const again = await startPlakarServerDouble(cleanup, sampleDirectory, { port: server.port });
    expect(await store.list('states')).toEqual([...content.states.keys()]);
    expect(again.requests).toEqual(['GET /resources/states', 'GET /', 'GET /resources/states']);
    await again.close();
    await startPlakarServerDouble(cleanup, sampleDirectory, { port: server.port });
    expect(await readAt(store, 0, 10)).toEqual(packfile.subarray(0, 10));
  });

  it('joins the path of its address with those of the resources, and sends its token', async () => {
    const options = { basePath: '/backups/album', authToken: 'a secret' };
    const server = await startPlakarServerDouble(cleanup, sampleDirectory, options);
    const store = storeAt(`${server.url}/backups/album/`, { authToken: 'a secret' });
    await store.readConfig();
    expect(await readAt(store, 3, 4)).toEqual(packfile.subarray(3, 7));
    expect(server.requests[0]).toBe('GET /backups/album/');
    const refused = storeAt(`${server.url}/backups/album`, { authToken: 'another secret' }).readConfig();
    await expect(refused).rejects.toMatchObject({ name: 'UserError', exitCode: 66 });
    await expect(refused).rejects.toThrow(/refused \(401/);
    await expect(refused).rejects.not.toThrow(/secret/);
  });

  it('names neither user nor password nor query of its address', () => {
    const store = storeAt('http://user:hidden@127.0.0.1:1/base?token=hidden');
    expect(store.location).toBe('http://127.0.0.1:1/base');
  });

  it('opens no more connections than it may, and keeps them', async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    const store = storeAt(server.url);
    await store.readConfig();
    await Promise.all(Array.from({ length: 200 }, (_, at) => readAt(store, at, 30)));
    expect(server.connectionsMost).toBeLessThanOrEqual(4);
  });

  it('takes the first bytes of a proxy that counts the end in, and nothing from one that sends another range', async () => {
    const inclusive = await withAnswer((_request, response) => {
      response.writeHead(206, { 'content-range': `bytes 10-20/${packfile.length}` });
      response.end(packfile.subarray(10, 21));
      return true;
    });
    expect(await readAt(inclusive, 10, 10)).toEqual(packfile.subarray(10, 20));
    const elsewhere = await withAnswer((_request, response) => {
      response.writeHead(206, { 'content-range': `bytes 0-10/${packfile.length}` });
      response.end(packfile.subarray(0, 11));
      return true;
    });
    await expect(readAt(elsewhere, 10, 10)).rejects.toThrow(/another range/);
    const whole = await withAnswer((_request, response) => {
      response.end(packfile);
      return true;
    });
    await expect(readAt(whole, 10, 10)).rejects.toThrow(/ignores ranges/);
  });

  it.each([
    [404, 'nothing here', MissingResourceError],
    [500, 'packfile not found', MissingResourceError],
    [500, 'out of memory', TransientStoreError],
    [503, '', TransientStoreError],
    [429, '', TransientStoreError],
    [416, '', CorruptStoreError],
    [403, 'go away', StoreUnavailableError],
    [302, '', StoreUnavailableError],
    [400, 'invalid range', StoreUnavailableError],
  ])('takes status %i "%s" for what it is', async (status, text, kind) => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    const store = storeAt(server.url);
    await store.readConfig();
    const answer: TestServer['interceptors'][number] = (request, response) => {
      // A second look at what is missing asks for the root in between.
      if (request.url === '/') return false;
      response.writeHead(status, { 'retry-after': '7' }).end(text);
      return true;
    };
    server.interceptors.push(answer, answer, answer);
    const error: unknown = await readAt(store, 0, 10).catch((reason: unknown) => reason);
    expect((error as Error).constructor).toBe(kind);
    expect((error as Error).message).toContain(packfileId);
    if (error instanceof TransientStoreError) expect(error.retryAfterMs).toBe(7000);
  });

  it('tells a body that breaks off from a packfile that ends', async () => {
    const cut = await withAnswer((_request, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write(packfile.subarray(0, 40), () => response.destroy());
      return true;
    });
    await expect(readAt(cut, 0, 100)).rejects.toBeInstanceOf(TransientStoreError);
    const short = await withAnswer((_request, response) => {
      response.end(packfile.subarray(0, 40));
      return true;
    });
    await expect(readAt(short, 0, 100)).rejects.toBeInstanceOf(CorruptStoreError);
  });

  it('gives up a server that says nothing, before the answer and within it', async () => {
    const server = await startTestServer(cleanup, (request, response) => {
      if (request.url?.includes('states')) response.writeHead(200, { 'content-length': 100 }).write('[');
    });
    const store = storeAt(server.url, { stallTimeoutMs: 20 });
    await expect(readAt(store, 0, 10)).rejects.toThrow(/sent nothing for 20 ms/);
    await expect(store.list('states')).rejects.toBeInstanceOf(TransientStoreError);
  });

  it('stops a read when told, for the reason given, and writes no more', async () => {
    const stop = new AbortController();
    const store = await withAnswer(() => {
      stop.abort(new TransientStoreError('took too long'));
      return true;
    });
    const reading = store.readPackfile(packfileId, 0, new Uint8Array(10), stop);
    await expect(reading).rejects.toThrow('took too long');
    await expect(store.readPackfile(packfileId, 0, new Uint8Array(10), stop)).rejects.toThrow('took too long');
    expect(await readAt(store, 0, 10)).toEqual(packfile.subarray(0, 10));
  });

  it('says at once that nobody is there, or somebody else', async () => {
    const server = await startTestServer(cleanup, (_request, response) => void response.end('<html>hello</html>'));
    await expect(storeAt(server.url).readConfig()).rejects.toThrow(/no plakar server/);
    await server.close();
    const reading = storeAt(server.url).readConfig();
    await expect(reading).rejects.toBeInstanceOf(UserError);
    await expect(reading).rejects.toMatchObject({ exitCode: 66 });
  });

  it('refuses a CONFIG beyond its limit, and an encoding it did not ask for', async () => {
    const long = await withAnswer((_request, response) => {
      response.end(Buffer.alloc(33 * 1024));
      return true;
    });
    await expect(long.readConfig()).rejects.toBeInstanceOf(CorruptStoreError);
    const packed = await withAnswer((_request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' });
      response.end(gzipSync('[]'));
      return true;
    });
    await expect(packed.list('states')).rejects.toThrow(/gzip/);
  });

  it('refuses after it was closed', async () => {
    const server = await startPlakarServerDouble(cleanup, sampleDirectory);
    const store = storeAt(server.url);
    await store.close();
    await expect(readAt(store, 0, 1)).rejects.toThrow(/closed/);
  });
});

describe('parseListing', () => {
  const ids = ['b', 'a'].map((digit) => digit.repeat(64));

  it('takes null, an empty list, and names that are ids, in order', () => {
    expect(parseListing(Buffer.from('null\n'), 'it')).toEqual([]);
    expect(parseListing(Buffer.from('[]\n'), 'it')).toEqual([]);
    const mixed = [...ids, ids[0], 'tmp.1', 5, 'B'.repeat(64)];
    expect(parseListing(Buffer.from(JSON.stringify(mixed)), 'it')).toEqual([...ids].sort());
  });

  it.each(['', '{}', '"x"', '[1'])('refuses %s', (text) => {
    expect(() => parseListing(Buffer.from(text), 'it')).toThrow(CorruptStoreError);
  });
});

it('reads Retry-After in seconds only', () => {
  expect(parseRetryAfter('3')).toBe(3000);
  expect(parseRetryAfter('Wed, 21 Oct 2026 07:28:00 GMT')).toBeUndefined();
  expect(parseRetryAfter(undefined)).toBeUndefined();
});
