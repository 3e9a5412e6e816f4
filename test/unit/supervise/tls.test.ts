/** TLS ends in the supervisor: workers never hear of it. */
import { beforeAll, describe, expect, test } from 'vitest';
import { silentLog } from '../../../src/core/log.ts';
import {
  commands,
  NBD_SIMPLE_REPLY_MAGIC,
  nbdSimpleReply,
  options,
  optionReplies as rep,
} from '../../../src/nbd/protocol.ts';
import { TlsCredentials } from '../../../src/nbd/tls-credentials.ts';
import type { SuperviseLimits } from '../../../src/supervise/limits.ts';
import { cleanupAfterAll, cleanupAfterEach } from '../../support/fixtures.ts';
import { infoData, RawClient } from '../../support/nbd-client.ts';
import { until } from '../../support/nbd-fixture.ts';
import { requires } from '../../support/requires.ts';
import { clientSettings, makeTlsFiles, type TlsFiles } from '../../support/tls-files.ts';
import { startSupervised } from './scripted-worker.ts';

const need = requires('openssl');
const cleanup = cleanupAfterEach();
const keep = cleanupAfterAll();
let files: TlsFiles;
beforeAll(() => {
  if (!need.missing) files = makeTlsFiles(keep);
});

async function start(required: boolean, limits: Partial<SuperviseLimits> = {}) {
  const sources = { certificates: files.folder, pskFile: undefined, verifyPeer: false };
  const credentials = await TlsCredentials.load(sources, silentLog);
  const supervised = await startSupervised(cleanup, {}, limits, { tls: { credentials, required } });
  const client = async () => {
    const made = await (await RawClient.connect(supervised.uri)).hello();
    cleanup.add(() => made.destroy());
    return made;
  };
  return { ...supervised, client };
}

describe.skipIf(need.missing)(need.title('TLS with a supervisor'), () => {
  test('nothing that must wait for TLS reaches a worker, and neither does STARTTLS', async () => {
    const { client: connect, worker } = await start(true);
    const client = await connect();
    for (const option of [options.NBD_OPT_GO, options.NBD_OPT_LIST, options.NBD_OPT_STRUCTURED_REPLY, 999]) {
      expect(await client.ask(option, infoData('disk'))).toMatchObject([{ reply: rep.NBD_REP_ERR_TLS_REQD }]);
    }
    expect(await client.askFinal(options.NBD_OPT_STARTTLS, Buffer.from('x'))).toMatchObject({
      reply: rep.NBD_REP_ERR_INVALID,
    });
    await client.startTls(clientSettings(files));
    expect(await client.askFinal(options.NBD_OPT_STARTTLS)).toMatchObject({ reply: rep.NBD_REP_ERR_INVALID });
    await client.go('disk');
    // The worker has been told of the flags and of GO.
    expect((await worker(1)).connections.at(-1)!.options).toEqual([options.NBD_OPT_GO]);
    const old = await connect();
    old.sendOption(options.NBD_OPT_EXPORT_NAME, Buffer.from('disk'));
    expect(await old.closed()).toHaveLength(0);
  });

  test('what was agreed on before TLS is forgotten, with the worker too', async () => {
    const { client: connect, worker } = await start(false);
    const client = await connect();
    expect(await client.askFinal(options.NBD_OPT_STRUCTURED_REPLY)).toMatchObject({ reply: rep.NBD_REP_ACK });
    await client.startTls(clientSettings(files));
    await client.go('disk');
    const { connections } = await worker(1);
    expect(connections.map((connection) => connection.options)).toEqual([
      [options.NBD_OPT_STRUCTURED_REPLY],
      [options.NBD_OPT_GO],
    ]);
  });

  test('a worker dies: the client goes on within its session', async () => {
    const { client: connect, worker } = await start(true);
    const client = await connect();
    await client.startTls(clientSettings(files));
    await client.go('disk');
    client.request({ type: commands.NBD_CMD_FLUSH });
    const first = (await worker(1)).connections.at(-1)!;
    await (await first.attached).request();
    (await worker(1)).die();
    const second = await (await worker(2)).attached();
    const { cookie } = await second.request();
    second.send(nbdSimpleReply.encode({ magic: NBD_SIMPLE_REPLY_MAGIC, error: 0, cookie }));
    expect((await client.reply()).errno).toBe(0);
  });

  test('a worker dies during the TLS handshake: the next one is asked', async () => {
    const { client: connect, worker } = await start(true);
    const client = await connect();
    expect(await client.askFinal(options.NBD_OPT_STARTTLS)).toMatchObject({ reply: rep.NBD_REP_ACK });
    (await worker(1)).die();
    await worker(2);
    await client.beginTls(clientSettings(files));
    await client.go('disk');
    expect((await worker(2)).connections).toHaveLength(1);
  });

  test('handshakes that are never finished give their places to newcomers', async () => {
    const { client: connect } = await start(true, { connectionsMax: 3 });
    const waiting = [await connect(), await connect(), await connect()];
    for (const client of waiting) await client.askFinal(options.NBD_OPT_STARTTLS);
    for (const displaced of waiting) {
      const client = await connect();
      await client.startTls(clientSettings(files));
      await client.go('disk');
      expect(await displaced.closed()).toHaveLength(0);
    }
    await expect(connect()).rejects.toThrow('the server closed');
  });

  test('garbage for a handshake: one line, and the others go on', async () => {
    const { client: connect, log } = await start(true);
    const other = await connect();
    await other.startTls(clientSettings(files));
    for (const bytes of [Buffer.alloc(100), Buffer.alloc(0), Buffer.from([0x16, 3, 1, 0, 200])]) {
      const before = log.length;
      const client = await connect();
      await client.askFinal(options.NBD_OPT_STARTTLS);
      client.send(bytes);
      client.socket.end();
      await client.closed();
      const lines = () => log.slice(before).filter(({ message }) => message.includes('TLS handshake failed'));
      await until(() => lines().length === 1);
    }
    await other.go('disk');
  });
});
