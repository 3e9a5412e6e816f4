/** Stores that only plakar opens: its server, run by us where nobody else reaches it. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import http from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Log } from '../../src/core/log.ts';
import { PlakarServer } from '../../src/kloset/plakar-server/plakar-server.ts';
import { openResolvedStore } from '../../src/kloset/store-location.ts';
import { runCli, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, copyOfStore, storePath, temporaryFolder } from '../support/fixtures.ts';
import { recordingLog } from '../support/recording-log.ts';
import { commandPath, findCommand, requires } from '../support/requires.ts';
import { processesWith, standInPlakar } from '../support/stand-in-plakar.ts';
import { contentOfDirectory, sampleDirectory } from '../support/store-content.ts';
import { runStoreSuite } from './store-suite.ts';

const cleanup = cleanupAfterEach();
const content = contentOfDirectory(sampleDirectory);

/** Waits for something that comes in the end; the test's own time-out is the bound. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await sleep(20);
}

const needNamespace = requires('network-namespace', 'setpriv', 'ip');
describe.skipIf(needNamespace.missing)(needNamespace.title('in a bare namespace'), () => {
  runStoreSuite({
    name: 'What plakar serves',
    content,
    open: async () => {
      const plakar = { command: standInPlakar(cleanup).command, allowOpenLoopback: false, always: true };
      return openResolvedStore({ location: sampleDirectory, options: {} }, { environment: {}, plakar });
    },
  });

  const start = async (location = sampleDirectory, log?: Log) => {
    const plakar = standInPlakar(cleanup);
    const options = { plakar: plakar.command, location, needsNetwork: false, allowOpenLoopback: false, log };
    const server = await PlakarServer.start(options);
    cleanup.add(() => server.close());
    return { server, plakar };
  };

  it('its port is nowhere on this host, and the socket only ours', async () => {
    const { server } = await start();
    // plakar's port in there, in hexadecimal as the kernel lists who listens.
    expect(readFileSync('/proc/net/tcp', 'utf8')).not.toMatch(/0100007F:2694 00000000:0000 0A/);
    const outcome = await new Promise((resolve) => {
      const socket = connect(9876, '127.0.0.1', () => resolve('connected'));
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
    });
    expect(outcome).toBe('ECONNREFUSED');
    expect(statSync(server.socketPath).mode & 0o777).toBe(0o600);
    expect(statSync(join(server.socketPath, '..')).mode & 0o777).toBe(0o700);
  });

  it('only GET goes through, though the server behind takes anything', async () => {
    const copy = copyOfStore(cleanup, sampleDirectory);
    const { server } = await start(copy);
    const status = (method: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const request = http.request({ socketPath: server.socketPath, path: '/resources/states/00', method });
        request.once('response', (response) => resolve(response.resume().statusCode));
        request.once('error', reject);
        request.end();
      });
    expect([await status('PUT'), await status('DELETE'), await status('POST')]).toEqual([405, 405, 405]);
    expect(existsSync(join(copy, 'written'))).toBe(false);
    expect(await status('GET')).toBe(500);
  });

  it('a plakar that dies is started again, and reads go on', async () => {
    const { log, lines } = recordingLog();
    const plakar = standInPlakar(cleanup);
    const options = { command: plakar.command, allowOpenLoopback: false, always: true };
    const store = openResolvedStore(
      { location: sampleDirectory, options: {} },
      { environment: {}, log, plakar: options },
    );
    cleanup.add(() => store.close());
    const [id, state] = [...content.states][0]!;
    await store.readConfig();
    for (let round = 1; round <= 2; round++) {
      // The relay has it in its orders; plakar is called by its own name.
      const servers = processesWith(`${plakar.command}\0-cachedir`);
      for (const pid of servers) process.kill(pid, 'SIGKILL');
      expect(Buffer.from(await store.readState(id))).toEqual(state);
      expect(plakar.calls()).toHaveLength(1 + round);
    }
    expect(lines.filter(({ message }) => /server ended \(SIGKILL\)/.test(message))).toHaveLength(2);
  });

  it('a relay that dies is started again, with all that belongs to it', async () => {
    const { server, plakar } = await start();
    const before = plakar.processes();
    for (const pid of processesWith(`"socketPath":"${server.socketPath}"`)) process.kill(pid, 'SIGKILL');
    await until(() => plakar.calls().length === 2 && existsSync(server.socketPath));
    expect(plakar.processes().filter((pid) => before.includes(pid))).toEqual([]);
  });

  it('closing leaves nothing behind', async () => {
    const { server, plakar } = await start();
    expect(plakar.processes()).not.toEqual([]);
    await server.close();
    await until(() => plakar.processes().length === 0);
    expect(existsSync(join(server.socketPath, '..'))).toBe(false);
  });

  it('kill -9 of our own process leaves nothing behind', async () => {
    const plakar = standInPlakar(cleanup);
    const temporary = temporaryFolder(cleanup);
    const args = ['latest', '--store', albumStore, '--through-plakar', '--plakar', plakar.command];
    const server = await startServer(cleanup, args, { env: { TMPDIR: temporary } });
    expect(plakar.processes()).not.toEqual([]);
    expect(readdirSync(temporary)).toHaveLength(1);
    server.kill('SIGKILL');
    await server.ended;
    await until(() => plakar.processes().length === 0 && readdirSync(temporary).length === 0);
  });

  it('the passphrase stays with us', async () => {
    const plakar = standInPlakar(cleanup);
    const args = [
      'snapshots',
      '--store',
      storePath('encrypted-scrypt'),
      '--through-plakar',
      '--plakar',
      plakar.command,
    ];
    const passphrase = 'fixture passphrase 2';
    const { exitCode, stderr } = await runCli(args, { env: { PLAKAR_PASSPHRASE: passphrase } });
    expect(stderr).toBe('');
    expect(exitCode).toBe(0);
    expect(plakar.calls()).toHaveLength(1);
    expect(plakar.calls()[0]!.passphrase).toBeUndefined();
    expect(plakar.calls()[0]!.words.join(' ')).not.toContain(passphrase);
  });
});

const needOutbound = requires('network-namespace', 'setpriv', 'slirp4netns', 'tun');
describe.skipIf(needOutbound.missing)(needOutbound.title('in a namespace with a way out'), () => {
  runStoreSuite({
    name: 'What plakar serves of a scheme of its own',
    content,
    open: async () => {
      const plakar = { command: standInPlakar(cleanup).command, allowOpenLoopback: false, always: false };
      const location = `standin://${sampleDirectory}`;
      return openResolvedStore({ location, options: {} }, { environment: {}, plakar });
    },
  });

  it('is given a new one when that program dies', async () => {
    const plakar = standInPlakar(cleanup);
    const options = { plakar: plakar.command, location: `standin://${sampleDirectory}`, allowOpenLoopback: false };
    const server = await PlakarServer.start({ ...options, needsNetwork: true });
    cleanup.add(() => server.close());
    const [relay] = processesWith(`"socketPath":"${server.socketPath}"`);
    const helpers = () => processesWith('slirp4netns\0--configure').filter((pid) => isBeside(pid, process.pid));
    const [before] = helpers();
    expect(before).toBeDefined();
    process.kill(before!, 'SIGKILL');
    await until(() => plakar.calls().length === 2 && existsSync(server.socketPath));
    expect(processesWith(`"socketPath":"${server.socketPath}"`)).not.toContain(relay);
  });
});

/** Whether a process is a child or grandchild of `ancestor`. */
function isBeside(pid: number, ancestor: number): boolean {
  const parentOf = (child: number) => Number(/^PPid:\t(\d+)/m.exec(readFileSync(`/proc/${child}/status`, 'utf8'))?.[1]);
  const parent = parentOf(pid);
  return parent === ancestor || (parent > 1 && parentOf(parent) === ancestor);
}

describe('a plakar that does not open the store', () => {
  const need = requires('network-namespace', 'setpriv', 'ip');
  it.skipIf(need.missing)(
    need.title('ends the command with 66 and its own words, no password among them'),
    async () => {
      const plakar = standInPlakar(cleanup);
      const location = `/no-such/user:hidden@host/store`;
      const { exitCode, stderr } = await runCli([
        'snapshots',
        '--store',
        location,
        '--through-plakar',
        '--plakar',
        plakar.command,
      ]);
      expect(exitCode).toBe(66);
      expect(stderr).toMatch(/plakar does not serve the store .*backend does not exist/);
      expect(plakar.calls()).toHaveLength(1);
    },
  );
});

const needSetpriv = requires('setpriv');
describe.skipIf(needSetpriv.missing)(needSetpriv.title('without a program for namespaces'), () => {
  /** A PATH with what a relay needs, and nothing that makes namespaces. */
  const bareEnvironment = () => {
    const folder = join(temporaryFolder(cleanup), 'bin');
    mkdirSync(folder);
    symlinkSync(commandPath('setpriv'), join(folder, 'setpriv'));
    return { PATH: folder };
  };
  const words = (plakar: string) => ['snapshots', '--store', `standin://${albumStore}`, '--plakar', plakar];

  it('refuses', async () => {
    const plakar = standInPlakar(cleanup);
    const { exitCode, stderr } = await runCli(words(plakar.command), { env: bareEnvironment() });
    expect(exitCode).toBe(64);
    expect(stderr).toMatch(/network namespace.*--allow-open-loopback/);
    expect(plakar.calls()).toEqual([]);
  });

  it('serves on the loopback where that is allowed, and says what that means', async () => {
    const plakar = standInPlakar(cleanup);
    const args = [...words(plakar.command), '--allow-open-loopback'];
    const { exitCode, stdout, stderr } = await runCli(args, { env: bareEnvironment() });
    expect(stderr).toMatch(/EVERY USER OF THIS HOST CAN WRITE INTO THE STORE/);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('8e457cf5');
    await until(() => plakar.processes().length === 0);
  });
});

const needPlakar = requires('plakar', 'network-namespace', 'setpriv', 'ip');
describe.skipIf(needPlakar.missing)(needPlakar.title('the real plakar'), () => {
  runStoreSuite({
    name: 'What it serves in a bare namespace',
    content,
    open: async () => {
      const location = copyOfStore(cleanup, sampleDirectory);
      const plakar = { command: findCommand('plakar')!, allowOpenLoopback: false, always: true };
      return openResolvedStore({ location, options: {} }, { environment: {}, plakar });
    },
  });
});
