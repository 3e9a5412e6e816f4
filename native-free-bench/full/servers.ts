/** Servers of NBD that take part: kloset-nbd, nbdkit over a raw image, qemu-nbd over a qcow2 overlay. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { builtCli, mustRun, type RunningServer, startServer } from '../../test/support/cli.ts';
import { type Cleanup, temporaryFolder } from '../../test/support/fixtures.ts';
import { commandPath, findPostgres15 } from '../../test/support/requires.ts';
import { stop } from '../fio.ts';
import type { Bench, BenchStore } from './bench.ts';
import { type Usage, usageOf } from './usage.ts';

export interface DiskServer {
  readonly uri: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** What kloset-nbd says of itself in its report. */
export interface KlosetReport {
  readonly storeBytes: number;
  readonly chunksFetched: number;
  readonly chunksFetchedTwice: number;
}

export interface KlosetServer extends DiskServer {
  /** Of this moment. */
  report(): Promise<KlosetReport>;
  usage(): Usage;
}

/**
 * Starts `kloset-nbd serve latest` on a Unix socket. What it has fetched twice is added to the results at its end.
 * `cacheDirectory`: a new one makes the server cold. `env` is added to the environment.
 */
export async function startKloset(
  bench: Bench,
  store: BenchStore,
  {
    cacheDirectory,
    options = [],
    env = {},
  }: { cacheDirectory: string; options?: readonly string[]; env?: NodeJS.ProcessEnv },
  cleanup: Cleanup,
): Promise<KlosetServer> {
  const socket = join(temporaryFolder(cleanup), 'nbd');
  const words = ['latest', '--store', store.location, '--cache-dir', cacheDirectory, '--listen', `unix:${socket}`];
  const owner = findPostgres15() === undefined ? [] : ['--owner', 'postgres'];
  const server = await startServer(cleanup, [...words, ...owner, ...options], {
    env: { ...klosetEnvironment(store), ...env },
  });
  return {
    uri: server.uris[0]!,
    pid: server.pid,
    report: () => askReport(server),
    usage: () => usageOf(server.pid),
    async stop() {
      await server.stop();
      const last = server.log.findLast(isReport) as unknown as KlosetReport | undefined;
      if (last !== undefined)
        bench.results.addToSum('chunks-twice', store.setting, 'kloset-nbd', last.chunksFetchedTwice);
    },
  };
}

export function klosetEnvironment({ passphrase }: BenchStore): NodeJS.ProcessEnv {
  return passphrase === undefined ? {} : { PLAKAR_PASSPHRASE: passphrase };
}

async function askReport(server: RunningServer): Promise<KlosetReport> {
  const before = server.log.length;
  server.kill('SIGUSR1');
  const line = await server.waitForLog((line) => isReport(line) && server.log.indexOf(line) >= before);
  return line as unknown as KlosetReport;
}

function isReport(line: { readonly [field: string]: unknown }): boolean {
  return typeof line.chunksFetchedTwice === 'number';
}

/** `nbdkit file`: the raw image and nothing else. */
export async function serveRaw(cleanup: Cleanup, image: string): Promise<DiskServer> {
  const socket = join(temporaryFolder(cleanup), 'nbd');
  return startedAt(
    cleanup,
    socket,
    spawn(commandPath('nbdkit'), ['-f', '-U', socket, 'file', image], { stdio: 'ignore' }),
  );
}

/** A new qcow2 overlay, `overlay`, over a raw image that stays as it is. */
export async function serveQcow2(cleanup: Cleanup, image: string, overlay: string): Promise<DiskServer> {
  await mustRun(commandPath('qemu-img'), ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', image, overlay]);
  const socket = join(temporaryFolder(cleanup), 'nbd');
  const options = ['-f', 'qcow2', '--discard=unmap', '-t', '-k', socket, overlay];
  return startedAt(cleanup, socket, spawn(commandPath('qemu-nbd'), options, { stdio: 'ignore' }));
}

/** Looks for the socket often: neither program says when it listens. */
async function startedAt(cleanup: Cleanup, socket: string, child: ChildProcess): Promise<DiskServer> {
  cleanup.add(() => stop(child));
  while (!existsSync(socket)) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return { uri: `nbd+unix:///?socket=${socket}`, pid: child.pid!, stop: () => stop(child) };
}

const helpTexts = new Map<string, string>();

/** Whether the command line has it: asked of its help. */
export function hasOption(command: string, option: string): boolean {
  let text = helpTexts.get(command);
  if (text === undefined) {
    text = spawnSync(process.execPath, [builtCli, command, '--help'], { encoding: 'utf8' }).stdout;
    helpTexts.set(command, text);
  }
  return text.includes(` ${option} `);
}
