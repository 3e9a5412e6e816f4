import { chmodSync, cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { TlsCredentials, type TlsSources } from '../../../src/nbd/tls-credentials.ts';
import { cleanupAfterAll, cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { requires } from '../../support/requires.ts';
import { makeTlsFiles, type TlsFiles } from '../../support/tls-files.ts';

const need = requires('openssl');
const cleanup = cleanupAfterEach();
const keep = cleanupAfterAll();
let files: TlsFiles;
/** A copy of them that a test may damage. */
let folder: string;
let lines: { level: string; message: string }[];
const note = (level: string) => (_: object, message: string) => void lines.push({ level, message });
const log = { debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') };

beforeAll(() => {
  if (!need.missing) files = makeTlsFiles(keep);
});
beforeEach(() => {
  lines = [];
  folder = temporaryFolder(cleanup);
  if (!need.missing) cpSync(files.folder, folder, { recursive: true });
});

const load = (sources: Partial<TlsSources> = {}) =>
  TlsCredentials.load({ certificates: folder, pskFile: undefined, verifyPeer: false, ...sources }, log);
const psk = () => join(folder, 'keys.psk');

async function refusal(sources: Partial<TlsSources> = {}): Promise<string> {
  const error = await load(sources).then(
    () => expect.unreachable('it was taken'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).exitCode).toBe(64);
  return (error as Error).message;
}

describe.skipIf(need.missing)(need.title('credentials'), () => {
  test('as nbdkit has them: the authority is needed only to verify clients', async () => {
    await load({ verifyPeer: true, pskFile: psk() });
    rmSync(join(folder, 'ca-cert.pem'));
    await load();
    expect(await refusal({ verifyPeer: true })).toContain('ca-cert.pem (ENOENT)');
    expect(lines).toEqual([]);
  });

  test.each([
    ['server-cert.pem', 'server-cert.pem (ENOENT)'],
    ['server-key.pem', 'server-key.pem (ENOENT)'],
  ])('%s is missing', async (name, message) => {
    rmSync(join(folder, name));
    expect(await refusal()).toContain(message);
  });

  test('a key of another certificate, and files that are none', async () => {
    cpSync(join(folder, 'client-key.pem'), join(folder, 'server-key.pem'));
    expect(await refusal()).toContain('server-key.pem in ');
    for (const name of ['server-key.pem', 'server-cert.pem']) {
      writeFileSync(join(folder, name), 'no PEM');
      expect(await refusal()).toContain('is not PEM');
    }
    writeFileSync(join(folder, 'server-cert.pem'), Buffer.alloc(2 ** 20 + 1));
    expect(await refusal()).toContain('has 1048577 bytes');
  });

  test('an authority or a list of revoked certificates that is none', async () => {
    writeFileSync(join(folder, 'ca-crl.pem'), 'no list');
    expect(await refusal({ verifyPeer: true })).toContain('OpenSSL does not take the TLS credentials');
    await load();
  });

  test.each([0o604, 0o602, 0o644])('keys that others may read or change: mode %o', async (mode) => {
    chmodSync(psk(), mode);
    expect(await refusal({ certificates: undefined, pskFile: psk() })).toContain(`chmod 600 ${psk()}`);
    chmodSync(join(folder, 'server-key.pem'), mode);
    await load();
    expect(lines).toMatchObject([{ level: 'warn', message: expect.stringContaining('chmod 600') }]);
  });

  test('keys that the group may read are taken', async () => {
    chmodSync(psk(), 0o640);
    await load({ certificates: undefined, pskFile: psk() });
  });

  test('files that cannot be read again change nothing but the log', async () => {
    const credentials = await load({ pskFile: psk() });
    const before = credentials.options;
    writeFileSync(psk(), 'no key\n');
    await credentials.reload();
    rmSync(join(folder, 'server-cert.pem'));
    await credentials.reload();
    expect(credentials.options).toBe(before);
    expect(lines.map(({ level }) => level)).toEqual(['error', 'error']);
    expect(lines[0]!.message).toContain('stay in use: line 1 of the PSK file');
    cpSync(files.folder, folder, { recursive: true });
    await credentials.reload();
    expect(credentials.options).not.toBe(before);
    expect(lines.at(-1)).toMatchObject({ level: 'info' });
  });

  test('whether every client proves itself', async () => {
    const proves = async (sources: Partial<TlsSources>) => (await load(sources)).clientsProveThemselves;
    expect(await proves({})).toBe(false);
    expect(await proves({ pskFile: psk() })).toBe(false);
    expect(await proves({ certificates: undefined, pskFile: psk() })).toBe(true);
    expect(await proves({ verifyPeer: true })).toBe(true);
  });
});
