/** A real S3 server process over a folder, for tests behind requires('s3-server'). */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Client } from 'minio';
import { parseS3Location } from '../../src/kloset/s3-location.ts';
import { S3Store } from '../../src/kloset/s3-store.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { answersHttp, freePort } from './ports.ts';
import { findCommand } from './requires.ts';

export interface S3Server {
  /** `127.0.0.1:PORT`, as it stands in `s3://` locations. */
  readonly endpoint: string;
  readonly port: number;
  readonly accessKey: string;
  readonly secretKey: string;
  /** Writes objects: what is under test cannot. */
  readonly client: Client;
  close(): Promise<void>;
}

export async function startS3Server(cleanup: Cleanup): Promise<S3Server> {
  const keys = { accessKey: 'testkey', secretKey: 'testsecret' };
  const port = await freePort();
  const endpoint = `127.0.0.1:${port}`;
  const child = spawnServer(cleanup, port, keys);
  const close = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  cleanup.add(close);
  while (!(await answersHttp(`http://${endpoint}/`))) {
    if (child.exitCode !== null) throw new Error(`the S3 server ended with ${child.exitCode} before it listened`);
  }
  const client = new Client({ endPoint: '127.0.0.1', port, useSSL: false, region: 'us-east-1', ...keys });
  return { endpoint, port, ...keys, client, close };
}

/** Puts the files of a directory store into a new bucket, each under `prefix` and its path. */
export async function fillBucket(server: S3Server, bucket: string, prefix: string, directory: string): Promise<void> {
  await server.client.makeBucket(bucket);
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  for (const file of files) {
    const path = join(file.parentPath, file.name);
    await server.client.putObject(bucket, prefix + relative(directory, path), readFileSync(path));
  }
}

/** The store under test, with the server's own keys. */
export function s3StoreAt(server: S3Server, path: string, access = accessOf(server)): S3Store {
  const settings = parseS3Location(`s3://${server.endpoint}${path}`, { use_tls: 'false' });
  return new S3Store({ settings, access, connectionsMax: 8, stallTimeoutMs: 30_000 });
}

function accessOf({ accessKey, secretKey }: S3Server) {
  return { accessKey, secretKey };
}

/** versitygw checks signatures, so it is preferred; moto's server takes any key. */
function spawnServer(cleanup: Cleanup, port: number, keys: { accessKey: string; secretKey: string }): ChildProcess {
  const folder = temporaryFolder(cleanup);
  const versitygw = findCommand('versitygw');
  if (versitygw !== undefined) {
    const data = join(folder, 'data');
    mkdirSync(data);
    const options = ['--port', `127.0.0.1:${port}`, '--access', keys.accessKey, '--secret', keys.secretKey];
    return spawn(versitygw, [...options, 'posix', data], { stdio: ['ignore', 'ignore', 'inherit'], cwd: folder });
  }
  const moto = findCommand('moto_server');
  if (moto === undefined) throw new Error("no S3 server is installed: the test lacks a requires('s3-server')");
  return spawn(moto, ['-H', '127.0.0.1', '-p', `${port}`], { stdio: 'ignore', cwd: folder });
}
