/** TLS over real sockets: who gets in, what is forgotten, what an attacker can do before and during the handshake. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect } from 'node:tls';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { silentLog } from '../../../src/core/log.ts';
import { MiB } from '../../../src/core/units.ts';
import {
  commandFlags,
  commands,
  IHAVEOPT,
  nbdOption,
  nbdOptionReply,
  options,
  optionReplies as rep,
} from '../../../src/nbd/protocol.ts';
import { TlsCredentials, type TlsSources } from '../../../src/nbd/tls-credentials.ts';
import { cleanupAfterAll } from '../../support/fixtures.ts';
import { MemoryDevice } from '../../support/memory-device.ts';
import { contextData, infoData, type RawClient } from '../../support/nbd-client.ts';
import { startServer, type TestServer, until } from '../../support/nbd-fixture.ts';
import { requires } from '../../support/requires.ts';
import {
  clientSettings,
  makeAuthority,
  makeCertificate,
  makeTlsFiles,
  type TlsFiles,
} from '../../support/tls-files.ts';

const need = requires('openssl');
const keep = cleanupAfterAll();
let files: TlsFiles;
beforeAll(() => {
  if (!need.missing) files = makeTlsFiles(keep);
});

let running: TestServer;
afterEach(() => running?.close());

interface Terms extends Partial<TlsSources> {
  readonly required?: boolean;
  readonly limits?: NonNullable<Parameters<typeof startServer>[1]>['limits'];
}

async function start({ required = true, limits = {}, ...sources }: Terms = {}): Promise<TlsCredentials> {
  const chosen = { certificates: files.folder, pskFile: undefined, verifyPeer: false, ...sources };
  const credentials = await TlsCredentials.load(chosen, silentLog);
  running = await startServer(new MemoryDevice(16 * MiB), { tls: { credentials, required }, limits });
  return credentials;
}

/** A client that speaks TLS. */
async function secureClient(settings: ConnectionOptions = clientSettings(files)): Promise<RawClient> {
  const client = await running.client();
  await client.startTls(settings);
  return client;
}

/** Why there is no TLS: what the client sees, or that the server closes behind a handshake that the client takes for done. */
async function failure(settings: ConnectionOptions): Promise<void> {
  const client = await running.client();
  await expect(client.startTls(settings).then(() => client.go())).rejects.toThrow();
}

const loggedFailures = () => running.log.filter(({ message }) => message.includes('the TLS handshake failed'));
const startTlsOption = nbdOption.encode({ magic: IHAVEOPT, option: options.NBD_OPT_STARTTLS, length: 0 });
const listOption = nbdOption.encode({ magic: IHAVEOPT, option: options.NBD_OPT_LIST, length: 0 });
const withKey = (key: Buffer, user = 'alice'): ConnectionOptions => ({
  ciphers: 'PSK:TLS_AES_128_GCM_SHA256',
  pskCallback: () => ({ psk: key, identity: user }),
  checkServerIdentity: () => undefined,
});

/** The server serves others, and has lost nothing. */
async function expectAlive(settings?: ConnectionOptions): Promise<void> {
  const client = await (await secureClient(settings)).go();
  expect(await client.read(0, 512)).toEqual(Buffer.alloc(512));
  client.destroy();
  await until(() => running.catalog.leases === 0 && running.server.counters.connectionsOpen === 0);
}

describe.skipIf(need.missing)(need.title('within TLS'), () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s: all that a client does without', async (version) => {
    await start();
    const client = await running.client();
    const socket = await client.startTls({ ...clientSettings(files), minVersion: version, maxVersion: version });
    expect([socket.authorized, socket.getProtocol()]).toEqual([true, version]);
    await client.go('disk', { style: 'extended', contexts: ['base:allocation'] });
    const data = Buffer.from(Array.from({ length: 3 * MiB }, (_, i) => (i * 7) % 251));
    const flags = commandFlags.NBD_CMD_FLAG_PAYLOAD_LEN;
    const written = await client.call({ type: commands.NBD_CMD_WRITE, flags, offset: 77, payload: data });
    expect(written).toMatchObject({ errno: 0 });
    expect((await client.read(77, data.length)).equals(data)).toBe(true);
    client.request({ type: commands.NBD_CMD_DISC });
    expect(await client.closed()).toHaveLength(0);
    expect(running.log.find(({ message }) => message.includes('attached'))?.fields).toMatchObject({ tls: version });
  });

  test('no older version', async () => {
    await start();
    await failure({ ...clientSettings(files), minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' });
    expect(loggedFailures()).toHaveLength(1);
    await expectAlive();
  });

  test('a client that has shut down its side gets its replies', async () => {
    await start();
    const client = await (await secureClient()).go();
    const cookies = [1, 2, 3].map((i) => client.request({ type: commands.NBD_CMD_READ, offset: i, length: MiB }));
    client.socket.end();
    const answered = [await client.reply(), await client.reply(), await client.reply()];
    expect(answered.map(({ cookie, data }) => [cookie, data.length])).toEqual(cookies.map((id) => [id, MiB]));
  });

  test('what was agreed on before is forgotten', async () => {
    await start({ required: false });
    const client = await running.client();
    await client.ask(options.NBD_OPT_STRUCTURED_REPLY);
    await client.ask(options.NBD_OPT_SET_META_CONTEXT, contextData('disk', ['base:allocation']));
    await client.startTls(clientSettings(files));
    const { reply } = await client.askFinal(options.NBD_OPT_SET_META_CONTEXT, contextData('disk', []));
    expect(reply).toBe(rep.NBD_REP_ERR_INVALID);
    await client.go();
    expect(client.style).toBe('simple');
    expect(await client.read(0, 4096)).toHaveLength(4096);
  });

  test('STARTTLS is invalid, and the connection goes on', async () => {
    await start();
    const client = await secureClient();
    for (const data of ['', 'data']) {
      expect(await client.askFinal(options.NBD_OPT_STARTTLS, Buffer.from(data))).toMatchObject({
        reply: rep.NBD_REP_ERR_INVALID,
      });
    }
    await client.go();
  });

  test('no second handshake in a session, and no record that was tampered with', async () => {
    await start();
    const old = { ...clientSettings(files), maxVersion: 'TLSv1.2' } as const;
    const asking = await running.client();
    const asked = await asking.startTls(old);
    const answer = await new Promise<Error | null>((resolve) => {
      asked.renegotiate({}, resolve);
      asked.once('error', resolve);
    });
    expect(answer).toBeInstanceOf(Error);
    const tampering = await running.client();
    const plain = tampering.socket;
    await tampering.startTls(clientSettings(files));
    await tampering.go();
    plain.write(Buffer.from([0x17, 3, 3, 0, 32, ...Buffer.alloc(32)]));
    await tampering.closed();
    await expectAlive();
  });

  test('a client that reads nothing is not read from, and nothing grows', async () => {
    await start({ limits: { bytesPerConnectionMax: 4 * MiB, requestsPerConnectionMax: 64 } });
    const client = await (await secureClient()).go();
    client.pauseReading();
    for (let i = 0; i < 64; i++) client.request({ type: commands.NBD_CMD_READ, length: MiB });
    // The account is full, however much the system's own buffers take.
    const settled = async () => {
      for (let before = -1; before !== running.server.counters.bytesRead; ) {
        before = running.server.counters.bytesRead;
        const other = await (await secureClient()).go('disk');
        await other.read(0, MiB);
        other.destroy();
        before += MiB;
      }
      return running.server.counters.bytesRead;
    };
    expect(await settled()).toBeLessThan(48 * MiB);
    client.resumeReading();
    for (let i = 0; i < 64; i++) expect((await client.reply()).data).toHaveLength(MiB);
  });
});

describe.skipIf(need.missing)(need.title('before TLS'), () => {
  test('a client that must use it learns nothing, and may still begin', async () => {
    await start();
    const client = await running.client();
    for (const [option, data] of [
      [options.NBD_OPT_LIST, ''],
      [options.NBD_OPT_GO, infoData('disk')],
      [options.NBD_OPT_INFO, infoData('nothing')],
      [options.NBD_OPT_STRUCTURED_REPLY, ''],
      [options.NBD_OPT_LIST, 'with data'],
      [999, Buffer.alloc(100_000)],
    ] as const) {
      expect(await client.ask(option, Buffer.from(data))).toMatchObject([{ reply: rep.NBD_REP_ERR_TLS_REQD }]);
    }
    expect(running.catalog.acquired).toBe(0);
    await client.startTls(clientSettings(files));
    await client.go();
    const old = await running.client();
    old.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.from('disk'));
    expect(await old.closed()).toHaveLength(0);
    const leaving = await running.client();
    expect(await leaving.askFinal(options.NBD_OPT_ABORT)).toMatchObject({ reply: rep.NBD_REP_ACK });
  });

  test('a client that need not goes on without, and its export is served', async () => {
    await start({ required: false });
    const client = await (await running.client()).go();
    expect(await client.read(0, 512)).toHaveLength(512);
  });

  test.each([1, 7, 16])('options put in behind STARTTLS, %i bytes a piece, are never answered', async (bytes) => {
    await start({ required: false });
    const client = await running.client();
    const all = Buffer.concat([startTlsOption, listOption, listOption]);
    if (bytes === 16) client.send(all);
    else for (let at = 0; at < all.length; at += bytes) client.send(all.subarray(at, at + bytes));
    expect((await client.receiveOptionReply(options.NBD_OPT_STARTTLS)).reply).toBe(rep.NBD_REP_ACK);
    // Taken for a TLS handshake, they are answered with nothing or with its alert.
    const said = await client.closed();
    if (said.length > 0) expect([said[0], said.length]).toEqual([0x15, 7]);
    await until(() => loggedFailures().length === 1);
    await expectAlive();
  });

  test('a handshake that begins before the answer is one nevertheless', async () => {
    await start();
    const client = await running.client();
    const sent: Buffer[] = [startTlsOption as Buffer];
    let hold = true;
    const { socket } = client;
    let answer = Buffer.alloc(0);
    const pipe = new Duplex({
      read() {},
      write(chunk: Buffer, _, done) {
        if (hold) sent.push(chunk);
        else socket.write(chunk);
        done();
      },
    });
    const secured = connect({ socket: pipe, servername: 'localhost', ...clientSettings(files) });
    await until(() => sent.length > 1);
    hold = false;
    socket.removeAllListeners('data').on('data', (chunk: Buffer) => {
      const missing = Math.min(nbdOptionReply.sizeBytes - answer.length, chunk.length);
      answer = Buffer.concat([answer, chunk.subarray(0, missing)]);
      if (missing < chunk.length) pipe.push(chunk.subarray(missing));
    });
    client.send(Buffer.concat(sent));
    await new Promise((resolve) => secured.once('secureConnect', resolve));
    expect(nbdOptionReply.read(answer).reply).toBe(rep.NBD_REP_ACK);
    secured.write(listOption);
    const listed = await new Promise<Buffer>((resolve) => secured.once('data', resolve));
    expect(listed.readUInt32BE(8)).toBe(options.NBD_OPT_LIST);
    secured.destroy();
  });
});

describe.skipIf(need.missing)(need.title('a handshake that fails'), () => {
  test.each([
    ['zeroes', Buffer.alloc(1000)],
    ['text', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a record that claims more than there can be', Buffer.from([0x16, 3, 1, 0xff, 0xff])],
    ['a hello cut off', Buffer.from([0x16, 3, 1, 0, 200, 1, 0, 0, 196])],
    ['an alert', Buffer.from([0x15, 3, 1, 0, 2, 2, 40])],
    ['nothing', Buffer.alloc(0)],
  ])('%s: one line, and nobody else notices', async (_, bytes) => {
    await start();
    const other = await (await secureClient()).go();
    const client = await running.client();
    expect(await client.askFinal(options.NBD_OPT_STARTTLS)).toMatchObject({ reply: rep.NBD_REP_ACK });
    client.send(bytes);
    client.socket.end();
    await client.closed();
    await until(() => loggedFailures().length === 1);
    expect(await other.read(0, 512)).toHaveLength(512);
    other.destroy();
    await expectAlive();
    expect(loggedFailures()).toHaveLength(1);
  });

  test('has its time, and no more', async () => {
    await start({ limits: { handshakeMsMax: 300 } });
    const client = await running.client();
    await client.askFinal(options.NBD_OPT_STARTTLS);
    client.send(Buffer.from([0x16, 3, 1, 0, 200]));
    expect(await client.closed()).toHaveLength(0);
    expect(running.log.some(({ message }) => message.includes('no handshake within 300 ms'))).toBe(true);
    await until(() => running.server.counters.connectionsOpen === 0);
  });

  test('gives its place to newcomers', async () => {
    await start({ limits: { connectionsMax: 4 } });
    const waiting: RawClient[] = [];
    for (let i = 0; i < 4; i++) {
      waiting.push(await running.client());
      await waiting[i]!.askFinal(options.NBD_OPT_STARTTLS);
    }
    for (const displaced of waiting) {
      await (await secureClient()).go();
      expect(await displaced.closed()).toHaveLength(0);
    }
  });

  test('does not hold up the end of the server', async () => {
    await start();
    const waiting = [await running.client(), await running.client()];
    for (const client of waiting) await client.askFinal(options.NBD_OPT_STARTTLS);
    await running.server.close();
    for (const client of waiting) expect(await client.closed()).toHaveLength(0);
  });
});

describe.skipIf(need.missing)(need.title('clients prove themselves'), () => {
  test('by a certificate of the authority: without one, or with one of another, they do not get in', async () => {
    await start({ verifyPeer: true });
    const strangers = makeTlsFiles(keep);
    await failure(clientSettings(files));
    await until(() => loggedFailures().length === 1);
    await failure({ ...clientSettings(strangers, true), ca: readFileSync(join(files.folder, 'ca-cert.pem')) });
    await until(() => loggedFailures().length === 2);
    expect(loggedFailures()[1]!.message).toContain("the client's certificate was refused");
    expect(running.catalog.acquired).toBe(0);
    await expectAlive(clientSettings(files, true));
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('by a key, %s', async (version) => {
    await start({ certificates: undefined, pskFile: files.psk });
    const settings = { ...withKey(files.key), minVersion: version, maxVersion: version };
    await expectAlive(settings);
    await failure({ ...settings, ...withKey(Buffer.alloc(32)) });
    await failure({ ...settings, ...withKey(files.key, 'bob') });
    await failure({ ...clientSettings(files), minVersion: version, maxVersion: version });
    await until(() => loggedFailures().length === 3);
    expect(running.catalog.acquired).toBe(1);
    await expectAlive(settings);
  });

  test('by either, where both are taken', async () => {
    await start({ verifyPeer: true, pskFile: files.psk });
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      await expectAlive({ ...withKey(files.key), maxVersion });
      await expectAlive({ ...clientSettings(files, true), maxVersion });
    }
    await failure(clientSettings(files));
    expect(running.catalog.acquired).toBe(4);
  });
});

describe.skipIf(need.missing)(need.title('credentials read again'), () => {
  test('are shown to new clients; those who are there go on', async () => {
    const mine = makeTlsFiles(keep);
    const credentials = await start({ certificates: mine.folder });
    const old = await (await secureClient(clientSettings(mine))).go();
    makeAuthority(mine.folder);
    makeCertificate(mine.folder, 'server');
    await expectAliveBeside(old);
    await credentials.reload();
    await failure(clientSettings(files));
    expect(await (await (await secureClient(clientSettings(mine))).go()).read(0, 512)).toHaveLength(512);
    expect(await old.read(0, 512)).toHaveLength(512);
  });

  async function expectAliveBeside(old: RawClient): Promise<void> {
    expect(await old.read(0, 512)).toHaveLength(512);
  }
});
