/** `kloset-nbd pg` and its kin as operators run them, with a directory for sessions of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { builtCli, type ProcessResult, run } from './cli.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';

export interface Sessions {
  readonly directory: string;
  run(...args: readonly string[]): Promise<ProcessResult>;
  /** Starts `pg ARGS` and waits until it is ready. */
  start(...args: readonly string[]): Promise<StartedPg>;
  /** What is there besides the lock: empty when everything was taken down. */
  leftOver(): readonly string[];
}

export interface StartedPg {
  /** What it printed when it was ready. */
  readonly said: string;
  readonly process: ChildProcess;
  /** Resolves to its exit status, or its signal's name. */
  readonly ended: Promise<number | string>;
  /** PGHOST, as its record has it. */
  host(): string;
}

export function sessionsIn(cleanup: Cleanup, added: NodeJS.ProcessEnv = {}): Sessions {
  const directory = join(temporaryFolder(cleanup), 's');
  const env = { ...process.env, NO_COLOR: '1', KLOSET_NBD_RUN_DIR: directory, ...added };
  const leftOver = () => list(directory).filter((name) => name !== 'lock');
  cleanup.add(async () => {
    const { stdout } = await run(process.execPath, [builtCli, 'status', '--json'], { env });
    for (const { kind, mountPoint } of JSON.parse(stdout) as { kind: string; mountPoint: string }[]) {
      if (kind === 'attach') await run(process.execPath, [builtCli, 'detach', mountPoint], { env });
    }
    await run(process.execPath, [builtCli, 'cleanup'], { env });
  });
  return {
    directory,
    leftOver,
    run: (...args) => run(process.execPath, [builtCli, ...args], { env }),
    async start(...args) {
      const child = spawn(process.execPath, [builtCli, 'pg', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      const ended = once(child, 'close').then(([status, signal]) => (status ?? signal) as number | string);
      cleanup.add(async () => {
        child.kill('SIGTERM');
        await ended;
      });
      const said = await firstLine(child, ended);
      const record = () => JSON.parse(readFileSync(join(directory, leftOver()[0]!, 'session.json'), 'utf8'));
      return { said, process: child, ended, host: () => record().host };
    },
  };
}

async function firstLine(child: ChildProcess, ended: Promise<unknown>): Promise<string> {
  let stderr = '';
  child.stderr!.on('data', (bytes: Buffer) => {
    stderr += bytes.toString();
  });
  const line = new Promise<string>((resolve) => createInterface({ input: child.stdout! }).once('line', resolve));
  const early = ended.then((status) => {
    throw new Error(`pg ended with ${status} before it was ready:\n${stderr}`);
  });
  return Promise.race([line, early]);
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // Nothing was ever started.
    return [];
  }
}
