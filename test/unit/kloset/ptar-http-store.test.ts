import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError, UserError } from '../../../src/core/errors.ts';
import { PtarHttpStore } from '../../../src/kloset/ptar-http-store.ts';
import { TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { startFileServer } from '../../support/plakar-server-double.ts';
import { contentOfArchive, sampleArchive } from '../../support/store-content.ts';

const cleanup = cleanupAfterEach();
const content = contentOfArchive(sampleArchive);
const [packfileId, packfile] = [...content.packfiles][0]!;

function storeAt(url: string): PtarHttpStore {
  const store = new PtarHttpStore({
    url: new URL(url),
    verifyCertificate: true,
    connectionsMax: 4,
    stallTimeoutMs: 30_000,
  });
  cleanup.add(() => store.close());
  return store;
}

describe('PtarHttpStore', () => {
  it('asks for the size once, then for ranges with the end included', async () => {
    const server = await startFileServer(cleanup, sampleArchive);
    const store = storeAt(`${server.url}/a.ptar?signature=hidden`);
    expect(store.location).toBe(`ptar+${server.url}/a.ptar`);
    await store.readConfig();
    await store.readPackfile(packfileId, 2, new Uint8Array(5));
    const path = '/a.ptar?signature=hidden';
    expect(server.requests).toEqual([
      `HEAD ${path}`,
      `GET ${path} bytes=0-11`,
      `GET ${path} bytes=39688-39735`,
      `GET ${path} bytes=12-380`,
      `GET ${path} bytes=383-387`,
    ]);
  });

  it('refuses a server that ignores ranges', async () => {
    const server = await startFileServer(cleanup, sampleArchive, { ignoresRanges: true });
    const opening = storeAt(server.url).readConfig();
    await expect(opening).rejects.toBeInstanceOf(UserError);
    await expect(opening).rejects.toThrow(/ignores ranges/);
  });

  it('notices that the archive was replaced, by its tag or by its size', async () => {
    const server = await startFileServer(cleanup, sampleArchive);
    const store = storeAt(server.url);
    await store.readConfig();
    const range = `bytes 381-390/${39736}`;
    for (const headers of [
      { etag: '"other"', 'content-range': range },
      { etag: '"39736"', 'content-range': range.replace('39736', '39737') },
    ]) {
      server.interceptors.push((_request, response) => {
        response.writeHead(206, headers).end(Buffer.alloc(10));
        return true;
      });
      await expect(store.readPackfile(packfileId, 0, new Uint8Array(10))).rejects.toThrow(/replaced/);
    }
    const target = Buffer.alloc(10);
    await store.readPackfile(packfileId, 0, target);
    expect(target).toEqual(packfile.subarray(0, 10));
  });

  it('opens later what could not be opened at first', async () => {
    const server = await startFileServer(cleanup, sampleArchive);
    const store = storeAt(server.url);
    server.interceptors.push((_request, response) => {
      response.writeHead(503).end();
      return true;
    });
    await expect(store.readState('')).rejects.toBeInstanceOf(TransientStoreError);
    expect(Buffer.from(await store.readState(''))).toEqual([...content.states.values()][0]);
  });

  it('refuses what is no archive, or only the beginning of one', async () => {
    const folder = temporaryFolder(cleanup);
    const cut = join(folder, 'cut.ptar');
    cpSync(sampleArchive, cut);
    for (const [bytes, reason] of [
      [Buffer.alloc(59), /too short/],
      [Buffer.alloc(600), /does not begin/],
      [Buffer.concat([Buffer.from('_PLATAR_\0\0\x01\0', 'latin1'), Buffer.alloc(600)]), /interrupted/],
    ] as const) {
      writeFileSync(cut, bytes);
      const opening = storeAt((await startFileServer(cleanup, cut)).url).readConfig();
      await expect(opening).rejects.toBeInstanceOf(CorruptStoreError);
      await expect(opening).rejects.toThrow(reason);
    }
  });

  it('needs the size from the server', async () => {
    const server = await startFileServer(cleanup, sampleArchive);
    server.interceptors.push((_request, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).end();
      return true;
    });
    await expect(storeAt(server.url).readState('')).rejects.toBeInstanceOf(StoreUnavailableError);
  });
});
