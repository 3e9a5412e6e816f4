import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from 'vitest';
import { CorruptStoreError, StoreUnavailableError, UserError } from '../../../src/core/errors.ts';
import { MissingResourceError, TransientStoreError } from '../../../src/kloset/remote-store.ts';
import { RetryingStore } from '../../../src/kloset/retrying-store.ts';
import { findS3Access, type RoleCredentials, type S3Access } from '../../../src/kloset/s3-credentials.ts';
import { parseS3Location } from '../../../src/kloset/s3-location.ts';
import { S3Store } from '../../../src/kloset/s3-store.ts';
import type { ReadOptions } from '../../../src/kloset/store.ts';
import { cleanupAfterEach } from '../../support/fixtures.ts';
import { startTestServer, type TestServer } from '../../support/plakar-server-double.ts';
import { contentOfDirectory, sampleDirectory } from '../../support/store-content.ts';

const cleanup = cleanupAfterEach();
const content = contentOfDirectory(sampleDirectory);
const [packfileId, packfile] = [...content.packfiles][0]!;
const keys = { accessKey: 'key', secretKey: 'hidden' };

describe('parseS3Location', () => {
  const parse = (location: string, options = {}, region?: string) => parseS3Location(location, options, region);

  it('splits endpoint, bucket and prefix as plakar does', () => {
    const plain = { host: 'minio.example', port: 9000, bucket: 'b', pathStyle: true, useTls: true };
    expect(parse('s3://minio.example:9000/b')).toMatchObject({ ...plain, prefix: '' });
    expect(parse('s3://minio.example:9000/b/')).toMatchObject({ ...plain, prefix: '' });
    expect(parse('s3://minio.example:9000/b/p/q')).toMatchObject({ ...plain, prefix: 'p/q/' });
    expect(parse('s3://minio.example:9000/b/p%20q/')).toMatchObject({ ...plain, prefix: 'p q/' });
    expect(parse('s3://minio.example/b', { port: '9000' })).toMatchObject(plain);
    expect(parse('s3://minio.example:9000/x', { root: '/b/p' })).toMatchObject({ ...plain, prefix: 'p/' });
    expect(parse('s3://b/p', { endpoint: 'minio.example:9000' })).toMatchObject({ ...plain, prefix: 'p/' });
    expect(parse('s3://[::1]:9000/b')).toMatchObject({ host: '::1', port: 9000 });
  });

  it('takes the bucket from the name of the host where told', () => {
    const options = { virtual_host: 'true', endpoint: 'https://s3.example/' };
    expect(parse('s3://b.s3.example/p', options)).toMatchObject({
      host: 's3.example',
      bucket: 'b',
      prefix: 'p/',
      pathStyle: false,
    });
    expect(() => parse('s3://b.s3.example/p', { virtual_host: 'true' })).toThrow(/endpoint/);
  });

  it('knows the region of an Amazon endpoint, asks the environment for that of the global one only', () => {
    expect(parse('s3://s3.eu-west-3.amazonaws.com/b', {}, 'us-west-1').region).toBe('eu-west-3');
    expect(parse('s3://s3.amazonaws.com/b', {}, 'us-west-1').region).toBe('us-west-1');
    expect(parse('s3://minio.example/b', {}, 'us-west-1').region).toBeUndefined();
    expect(parse('s3://minio.example/b', { region: 'garage' }).region).toBe('garage');
  });

  it.each([
    ['s3://host', {}],
    ['s3:///bucket', {}],
    ['s3://key:secret@host/bucket', {}],
    ['s3://host:port/bucket', {}],
    ['s3://host/b%zz', {}],
    ['s3://host/bucket', { use_tls: 'perhaps' }],
    ['s3://host/bucket', { sse_customer_key: 'c2hvcnQ=' }],
  ])('refuses %s %j', (location, options) => {
    expect(() => parse(location, options)).toThrow(UserError);
  });
});

/** An S3 server that answers everything with `handle`. */
async function storeBefore(
  handle: Parameters<typeof startTestServer>[1],
  { access = keys, stallTimeoutMs = 30_000 }: { access?: S3Access; stallTimeoutMs?: number } = {},
): Promise<{ store: S3Store; server: TestServer }> {
  const server = await startTestServer(cleanup, handle);
  const settings = parseS3Location(`s3://127.0.0.1:${server.port}/bucket/some/prefix`, {
    use_tls: 'false',
    region: 'us-east-1',
  });
  const store = new S3Store({ settings, access, connectionsMax: 2, stallTimeoutMs });
  cleanup.add(() => store.close());
  return { store, server };
}

function xmlError(code: string): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`;
}

describe('S3Store', () => {
  it('asks by GET for standard ranges, signed, and never names a key', async () => {
    let authorization: string | undefined;
    const { store, server } = await storeBefore((request, response) => {
      authorization = request.headers.authorization;
      response.writeHead(206, { 'content-range': 'bytes 5-14/1000' }).end(packfile.subarray(5, 15));
    });
    const target = Buffer.alloc(10);
    await store.readPackfile(packfileId, 5, target);
    expect(target).toEqual(packfile.subarray(5, 15));
    const path = `/bucket/some/prefix/packfiles/${packfileId.slice(0, 2)}/${packfileId}`;
    expect(server.requests).toEqual([`GET ${path} bytes=5-14`]);
    expect(authorization).toMatch(/^AWS4-HMAC-SHA256 Credential=key\/\d{8}\/us-east-1\/s3\/aws4_request, .*range/);
    expect(store.location).toBe(`s3://127.0.0.1:${server.port}/bucket/some/prefix`);
  });

  it('sends the key it is to be decrypted with in headers, and nowhere else', async () => {
    let request: IncomingMessage | undefined;
    const server = await startTestServer(cleanup, (incoming, response) => {
      request = incoming;
      response.end(content.config);
    });
    const customerKey = Buffer.alloc(32, 7).toString('base64');
    const options = { use_tls: 'false', region: 'us-east-1', sse_customer_key: customerKey };
    const settings = parseS3Location(`s3://127.0.0.1:${server.port}/bucket`, options);
    const store = new S3Store({ settings, access: keys, connectionsMax: 2, stallTimeoutMs: 30_000 });
    cleanup.add(() => store.close());
    await store.readConfig();
    expect(request?.headers['x-amz-server-side-encryption-customer-key']).toBe(customerKey);
    expect(request?.headers.authorization).toContain('x-amz-server-side-encryption-customer-key;');
    expect(request?.url).toBe('/bucket/CONFIG');
  });

  it.each([
    [503, '', TransientStoreError],
    [500, xmlError('InternalError'), TransientStoreError],
    [429, '', TransientStoreError],
    [400, xmlError('RequestTimeout'), TransientStoreError],
    [404, xmlError('NoSuchKey'), MissingResourceError],
    [403, xmlError('AccessDenied'), StoreUnavailableError],
    [400, xmlError('ExpiredToken'), StoreUnavailableError],
    [416, xmlError('InvalidRange'), CorruptStoreError],
    [200, 'all of it, unasked', StoreUnavailableError],
  ])('takes status %i %s for what it is', async (status, text, kind) => {
    const { store, server } = await storeBefore((request, response) => {
      if (request.method === 'HEAD') response.writeHead(404).end();
      else response.writeHead(status, { 'retry-after': '2' }).end(text);
    });
    for (let attempt = 0; attempt < 5; attempt++) {
      const reading = store.readPackfile(packfileId, 0, new Uint8Array(10));
      const error: unknown = await reading.catch((reason: unknown) => reason);
      expect((error as Error).constructor).toBe(kind);
      expect((error as Error).message).toContain(packfileId);
      expect((error as Error).message).not.toContain('hidden');
      if (status === 503) expect((error as TransientStoreError).retryAfterMs).toBe(2000);
    }
    // Five answers on two connections: none was left behind unread.
    expect(server.requests.filter((request) => request.startsWith('GET'))).toHaveLength(5);
  });

  it('says that a packfile exists only as a frozen copy', async () => {
    const { store } = await storeBefore((request, response) => {
      if (request.method === 'HEAD' && request.url?.endsWith('.frozen')) {
        response.writeHead(200, { 'content-length': 5, etag: '"x"', 'last-modified': new Date(0).toUTCString() }).end();
      } else response.writeHead(404).end(xmlError('NoSuchKey'));
    });
    const reading = store.readPackfile(packfileId, 0, new Uint8Array(10));
    await expect(reading).rejects.toThrow(/cold storage/);
    await expect(reading).rejects.not.toBeInstanceOf(TransientStoreError);
  });

  it('tells a body that breaks off, and one that stalls, from one that ends', async () => {
    const headers = { 'content-range': 'bytes 0-99/1000', 'content-length': 100 };
    const cut = await storeBefore((_request, response) => {
      response.writeHead(206, headers).write(Buffer.alloc(40), () => response.destroy());
    });
    await expect(cut.store.readPackfile(packfileId, 0, new Uint8Array(100))).rejects.toBeInstanceOf(
      TransientStoreError,
    );
    const stalled = await storeBefore((_request, response) => void response.writeHead(206, headers).flushHeaders(), {
      stallTimeoutMs: 20,
    });
    await expect(stalled.store.readPackfile(packfileId, 0, new Uint8Array(100))).rejects.toBeInstanceOf(
      TransientStoreError,
    );
    const silent = await storeBefore(() => undefined, { stallTimeoutMs: 20 });
    await expect(silent.store.readPackfile(packfileId, 0, new Uint8Array(100))).rejects.toThrow(/sent nothing/);
    const short = await storeBefore((_request, response) => {
      response.writeHead(206, { 'content-range': 'bytes 0-39/40' }).end(Buffer.alloc(40));
    });
    await expect(short.store.readPackfile(packfileId, 0, new Uint8Array(100))).rejects.toBeInstanceOf(
      CorruptStoreError,
    );
  });

  it('stops a read when told, before the answer and within it', async () => {
    const stops: AbortController[] = [];
    const { store, server } = await storeBefore((request, response) => {
      if (request.url?.includes('states')) response.writeHead(200, { 'content-length': 100 }).write('x');
      queueMicrotask(() => stops.shift()?.abort(new TransientStoreError('took too long')));
    });
    const reads = [
      (options: ReadOptions) => store.readPackfile(packfileId, 0, new Uint8Array(10), options),
      (options: ReadOptions) => store.readState(packfileId, options),
      (options: ReadOptions) => store.list('states', options),
    ];
    for (const read of reads) {
      const stop = new AbortController();
      stops.push(stop);
      await expect(read(stop)).rejects.toThrow('took too long');
      await expect(read(stop)).rejects.toThrow('took too long');
    }
    expect(server.requests).toHaveLength(reads.length);
  });

  it('says at once that there is nothing there', async () => {
    const empty = await storeBefore((_request, response) => response.writeHead(404).end(xmlError('NoSuchKey')));
    await expect(empty.store.readConfig()).rejects.toMatchObject({ name: 'UserError', exitCode: 66 });
    await empty.server.close();
    await expect(empty.store.readConfig()).rejects.toMatchObject({ name: 'UserError', exitCode: 66 });
    const refused = await storeBefore((_request, response) =>
      response.writeHead(403).end(xmlError('InvalidAccessKeyId')),
    );
    await expect(refused.store.readConfig()).rejects.toThrow(/InvalidAccessKeyId.*Check endpoint, keys/);
  });
});

describe('findS3Access', () => {
  const environment = { AWS_ACCESS_KEY_ID: 'e', AWS_SECRET_ACCESS_KEY: 'hidden', AWS_SESSION_TOKEN: 'also hidden' };

  it("prefers the store's own keys, then the environment's", () => {
    const own = { access_key: 'o', secret_access_key: 's' };
    expect(findS3Access('h', own, environment)).toEqual({ accessKey: 'o', secretKey: 's' });
    expect(findS3Access('h', {}, environment)).toEqual({
      accessKey: 'e',
      secretKey: 'hidden',
      sessionToken: 'also hidden',
    });
  });

  it('says what is missing, without what is there', () => {
    expect(() => findS3Access('h', { secret_access_key: 'hidden' }, {})).toThrow(/one of access_key/);
    expect(() => findS3Access('h', {}, { AWS_ACCESS_KEY_ID: 'e' })).toThrow(/no keys for h/);
    const disabled = { AWS_EC2_METADATA_DISABLED: 'true' };
    expect(() => findS3Access('s3.amazonaws.com', {}, disabled)).toThrow(/no keys/);
  });

  /** The service that an instance's or a container's role is asked of; each answer has its own key. */
  async function startRoleService(expiresInMs: number) {
    let given = 0;
    const server = await startTestServer(cleanup, (request, response) => {
      if (request.method === 'PUT') return void response.end('session');
      if (request.url === '/latest/meta-data/iam/security-credentials/') return void response.end('reader\n');
      if (request.headers.authorization !== 'token' && request.headers['x-aws-ec2-metadata-token'] !== 'session') {
        return void response.writeHead(401).end();
      }
      const Expiration = new Date(Date.now() + expiresInMs).toISOString();
      response.end(JSON.stringify({ AccessKeyId: `key ${++given}`, SecretAccessKey: 's', Token: 't', Expiration }));
    });
    return server;
  }
  const providerOf = (access: S3Access) => (access as { credentialsProvider: RoleCredentials }).credentialsProvider;

  it("asks for an instance's keys once, and again when they were refused", async () => {
    const service = await startRoleService(3_600_000);
    const role = providerOf(findS3Access('h', {}, { AWS_EC2_METADATA_SERVICE_ENDPOINT: service.url }));
    const both = await Promise.all([role.getCredentials(), role.getCredentials()]);
    expect(both.map((credentials) => credentials.getAccessKey())).toEqual(['key 1', 'key 1']);
    expect((await role.getCredentials()).getSessionToken()).toBe('t');
    expect(service.requests).toEqual([
      'PUT /latest/api/token',
      'GET /latest/meta-data/iam/security-credentials/',
      'GET /latest/meta-data/iam/security-credentials/reader',
    ]);
    role.forget();
    expect((await role.getCredentials()).getAccessKey()).toBe('key 2');
  });

  it("asks for a container's keys, anew before they expire, and uses the old ones while it cannot", async () => {
    const service = await startRoleService(60_000);
    const environment = {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${service.url}/v1/credentials`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: 'token',
    };
    const role = providerOf(findS3Access('h', {}, environment));
    expect((await role.getCredentials()).getAccessKey()).toBe('key 1');
    expect((await role.getCredentials()).getAccessKey()).toBe('key 2');
    await service.close();
    expect((await role.getCredentials()).getAccessKey()).toBe('key 2');
    role.forget();
    await expect(role.getCredentials()).rejects.toBeInstanceOf(TransientStoreError);
  });

  it('renews keys that a store calls expired, and reads on', async () => {
    const service = await startRoleService(3_600_000);
    const access = findS3Access('h', {}, { AWS_EC2_METADATA_SERVICE_ENDPOINT: service.url });
    const { store } = await storeBefore(
      (request, response) => {
        if (request.headers.authorization?.includes('key 1')) response.writeHead(400).end(xmlError('ExpiredToken'));
        else response.end(readFileSync(`${sampleDirectory}/CONFIG`));
      },
      { access },
    );
    await expect(store.readConfig()).rejects.toBeInstanceOf(TransientStoreError);
    expect(Buffer.from(await store.readConfig())).toEqual(content.config);
  });

  it.each([
    ['their date', 60_000],
    ['the store', 3_600_000],
  ])('a fetch after keys have expired, by %s, uses new ones, and its reader sees no error', async (_, expiresInMs) => {
    const service = await startRoleService(expiresInMs);
    const access = findS3Access('h', {}, { AWS_EC2_METADATA_SERVICE_ENDPOINT: service.url });
    const keys: (string | undefined)[] = [];
    const { store } = await storeBefore(
      (request, response) => {
        const key = /Credential=(key \d)/.exec(request.headers.authorization ?? '')?.[1];
        // The first fetch is answered; from then on its key is of no use.
        const hasExpired = keys.length > 0 && key === keys[0];
        keys.push(key);
        if (hasExpired) response.writeHead(400).end(xmlError('ExpiredToken'));
        else response.writeHead(206, { 'content-range': 'bytes 0-4/5' }).end('bytes');
      },
      { access },
    );
    const retrying = new RetryingStore(store);
    for (let fetch = 0; fetch < 2; fetch++) {
      const target = Buffer.alloc(5);
      await retrying.readPackfile('0'.repeat(64), 0, target);
      expect(target.toString()).toBe('bytes');
    }
    expect(keys).toEqual(expiresInMs === 60_000 ? ['key 1', 'key 2'] : ['key 1', 'key 1', 'key 2']);
  });
});
