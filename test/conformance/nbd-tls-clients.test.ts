/** Real clients over TLS, which this project did not write: GnuTLS on their side, OpenSSL on ours. */
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { silentLog } from '../../src/core/log.ts';
import { MiB } from '../../src/core/units.ts';
import { TlsCredentials, type TlsSources } from '../../src/nbd/tls-credentials.ts';
import { mustRun, type ProcessResult, run } from '../support/cli.ts';
import { cleanupAfterAll, cleanupAfterEach, temporaryFolder } from '../support/fixtures.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { startServer, type TestServer } from '../support/nbd-fixture.ts';
import { commandPath, type Need, requires } from '../support/requires.ts';
import { makeTlsFiles, type TlsFiles } from '../support/tls-files.ts';

const keep = cleanupAfterAll();
const cleanup = cleanupAfterEach();
const SIZE = 16 * MiB;
let files: TlsFiles;
let strangers: TlsFiles;
beforeAll(() => {
  if (requires('openssl').missing) return;
  files = makeTlsFiles(keep);
  strangers = makeTlsFiles(keep);
});

async function start(sources: Partial<TlsSources>, required = true): Promise<TestServer> {
  const all = { certificates: undefined, pskFile: undefined, verifyPeer: false, ...sources };
  const tls = { credentials: await TlsCredentials.load(all, silentLog), required };
  const running = await startServer({ disk: { device: new MemoryDevice(SIZE) } }, { tls });
  cleanup.add(() => running.close());
  return running;
}

const byCertificate = () => start({ certificates: files.folder, verifyPeer: true });
const byKey = () => start({ pskFile: files.psk });
const byEither = () => start({ certificates: files.folder, pskFile: files.psk, verifyPeer: true });

/** The URI on TCP for a client with these files; on localhost, which the certificate names. */
const withCertificate = ({ tcp }: TestServer, { folder }: TlsFiles) =>
  `nbds://localhost:${new URL(tcp).port}/disk?tls-certificates=${folder}`;
const withKey = ({ tcp }: TestServer, psk: string, user = 'alice') =>
  `nbds://${user}@localhost:${new URL(tcp).port}/disk?tls-psk-file=${psk}`;
const overUnix = ({ unix }: TestServer, more: string) => `${unix.replace('unix:///', `unix:///disk`)}&${more}`;
const sizeBy = (uri: string) => run(commandPath('nbdinfo'), ['--size', uri]);

function withTool(need: Need, title: string, body: () => Promise<void>): void {
  const needed = requires('openssl', need);
  test.skipIf(needed.missing)(needed.title(title), body);
}

function expectSize({ exitCode, stdout, stderr }: ProcessResult): void {
  expect([exitCode, stdout.trim(), stderr]).toEqual([0, String(SIZE), '']);
}

describe('nbdinfo', () => {
  withTool('nbdinfo', 'gets in with a certificate, over TCP and a Unix socket, and sees that it is TLS', async () => {
    const running = await byCertificate();
    const uri = withCertificate(running, files);
    expectSize(await sizeBy(uri));
    const { TLS } = JSON.parse(await mustRun(commandPath('nbdinfo'), ['--json', uri]));
    expect(TLS).toBe(true);
    expectSize(await sizeBy(overUnix(running, `tls-certificates=${files.folder}&tls-verify-peer=false`)));
  });

  withTool('nbdinfo', 'gets in with a key, alone or beside certificates', async () => {
    for (const running of [await byKey(), await byEither()]) {
      expectSize(await sizeBy(withKey(running, files.psk)));
      expectSize(
        await sizeBy(overUnix(running, `tls-psk-file=${files.psk}`).replace('nbds+unix://', 'nbds+unix://alice@')),
      );
    }
  });

  withTool('nbdinfo', 'is turned away without TLS, with another certificate, and with another key', async () => {
    const running = await byEither();
    const refused = async (uri: string) => {
      const { exitCode, stderr } = await sizeBy(uri);
      expect(exitCode, uri).toBe(1);
      return stderr;
    };
    expect(await refused(`${running.tcp.replace('nbds:', 'nbd:')}disk`)).toContain('requires TLS');
    await refused(withCertificate(running, strangers));
    await refused(withKey(running, strangers.psk));
    expect(running.catalog.acquired).toBe(0);
    expectSize(await sizeBy(withCertificate(running, files)));
  });

  withTool('nbdinfo', 'may go without where TLS is offered', async () => {
    const running = await start({ certificates: files.folder }, false);
    expect(running.tcp).toMatch(/^nbd:/);
    expectSize(await sizeBy(`${running.tcp}disk`));
    expectSize(await sizeBy(withCertificate(running, files)));
  });
});

withTool('nbdcopy', 'nbdcopy writes and reads the disk over four connections', async () => {
  const running = await byEither();
  const [image, back] = ['image', 'back'].map((name) => join(temporaryFolder(cleanup), name));
  await mustRun(commandPath('openssl'), ['rand', '-out', image!, String(SIZE)]);
  for (const uri of [withCertificate(running, files), withKey(running, files.psk)]) {
    await mustRun(commandPath('nbdcopy'), ['--connections=4', image!, uri]);
    await mustRun(commandPath('nbdcopy'), ['--connections=4', uri, back!]);
    await mustRun('cmp', [image!, back!]);
  }
});

describe('qemu-img', () => {
  const info = ({ tcp }: TestServer, object: string) => {
    const image = `driver=nbd,server.type=inet,server.host=localhost,server.port=${new URL(tcp).port},export=disk,tls-creds=t`;
    return run(commandPath('qemu-img'), ['info', '--output=json', '--object', object, '--image-opts', image]);
  };

  withTool('qemu-img', 'gets in with a certificate, and not with another', async () => {
    const running = await byCertificate();
    const own = await info(running, `tls-creds-x509,id=t,endpoint=client,dir=${files.folder}`);
    expect(JSON.parse(own.stdout)['virtual-size']).toBe(SIZE);
    expect((await info(running, `tls-creds-x509,id=t,endpoint=client,dir=${strangers.folder}`)).exitCode).toBe(1);
  });

  withTool('qemu-img', 'gets in with a key, and not with another', async () => {
    const running = await byKey();
    const creds = ({ psk }: TlsFiles) => `tls-creds-psk,id=t,endpoint=client,username=alice,dir=${dirname(psk)}`;
    expect(JSON.parse((await info(running, creds(files))).stdout)['virtual-size']).toBe(SIZE);
    expect((await info(running, creds(strangers))).exitCode).toBe(1);
  });
});

withTool('nbdkit', 'nbdkit passes the disk on in clear', async () => {
  const running = await byCertificate();
  const { port } = new URL(running.tcp);
  const plugin = ['nbd', 'hostname=localhost', `port=${port}`, 'export=disk', 'tls=require'];
  const passing = [...plugin, `tls-certificates=${files.folder}`, '--run', `${commandPath('nbdinfo')} --size "$uri"`];
  expect((await mustRun(commandPath('nbdkit'), ['-U', '-', ...passing])).trim()).toBe(String(SIZE));
});
