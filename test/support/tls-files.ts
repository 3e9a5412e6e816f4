/** Certificates and keys as an operator makes them, good for a day. Needs requires('openssl'). */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { commandPath } from './requires.ts';

export interface TlsFiles {
  /** ca-cert.pem, and certificate and key of server and client, under nbdkit's names. */
  readonly folder: string;
  /** One user, alice. */
  readonly psk: string;
  readonly key: Buffer;
}

export function makeTlsFiles(cleanup: Cleanup): TlsFiles {
  const folder = temporaryFolder(cleanup);
  makeAuthority(folder);
  for (const name of ['server', 'client']) makeCertificate(folder, name);
  const psk = join(folder, 'keys.psk');
  const key = randomBytes(32);
  writeFileSync(psk, `alice:${key.toString('hex')}\n`, { mode: 0o600 });
  return { folder, psk, key };
}

/** A new authority, in place of the one there is. */
export function makeAuthority(folder: string): void {
  const subject = ['-subj', '/CN=authority of a test', '-days', '1'];
  openssl(folder, 'req', '-x509', ...newKey, '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', ...subject);
}

/** `NAME-cert.pem` and `NAME-key.pem`, by the authority of the folder, for localhost. */
export function makeCertificate(folder: string, name: string): void {
  openssl(folder, 'req', ...newKey, '-keyout', `${name}-key.pem`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
  writeFileSync(join(folder, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  const authority = ['-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial'];
  const more = ['-days', '1', '-extfile', 'names', '-out', `${name}-cert.pem`];
  openssl(folder, 'x509', '-req', '-in', `${name}.csr`, ...authority, ...more);
}

/** What a client with these files gives to node:tls; with its own certificate if `asClient`. */
export function clientSettings({ folder }: TlsFiles, asClient = false): ConnectionOptions {
  const read = (name: string) => readFileSync(join(folder, name));
  const own = asClient ? { cert: read('client-cert.pem'), key: read('client-key.pem') } : {};
  return { ca: read('ca-cert.pem'), ...own };
}

/** Elliptic: made in no time. */
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

function openssl(folder: string, ...args: readonly string[]): void {
  execFileSync(commandPath('openssl'), args, { cwd: folder, stdio: 'pipe' });
}
