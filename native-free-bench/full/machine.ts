/** Where figures come from: machine, versions, workload. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { formatBytes } from '../../src/core/units.ts';
import { projectRoot } from '../../test/support/fixtures.ts';
import { findCommand, findPostgres15 } from '../../test/support/requires.ts';
import type { BenchOptions } from './options.ts';
import { postgresParameters } from './session.ts';

/** From here on other programs take so much of the machine that figures mean little. */
const LOAD_MAX = 1;

/** Lines for the head of the results. */
export function describeMachine(options: BenchOptions, directory: string): string[] {
  const [cpu] = os.cpus();
  const postgres = findPostgres15();
  const versions = [
    `Node.js ${process.version}`,
    firstLine('plakar', 'version'),
    postgres && firstLine(join(postgres, 'postgres'), '--version'),
    ...['nbdkit', 'nbdcopy', 'qemu-nbd', 'fio'].map((name) => firstLine(name, '--version')),
  ];
  return [
    `machine: ${cpu?.model.trim()}, ${os.cpus().length} cores, ${formatBytes(os.totalmem())} of memory, Linux ${os.release()}, ${filesystemOf(directory)}`,
    `versions: kloset-nbd ${commit()}; ${versions.filter(Boolean).join('; ')}`,
    `workload: seed ${options.seed}, ${options.runs} runs, medians; distant store: ${options.latencyMs} ms for every request`,
    `PostgreSQL: ${postgresParameters.join(', ')}`,
    `load average at the start: ${os.loadavg()[0]!.toFixed(2)}`,
  ];
}

/** Undefined if the machine is quiet. */
export function warningOfLoad(load = os.loadavg()[0]!): string | undefined {
  if (load <= LOAD_MAX) return undefined;
  return `The load average was ${load.toFixed(1)} at the start: other programs ran, and the figures are noisy.`;
}

function firstLine(command: string, option: string): string | undefined {
  const path = findCommand(command) ?? (command.startsWith('/') ? command : undefined);
  if (path === undefined) return undefined;
  return execFileSync(path, [option], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    .split('\n')
    .findLast((line) => /\d\.\d|\d-/.test(line) && !line.startsWith('Copyright'))
    ?.trim();
}

function filesystemOf(directory: string): string {
  return execFileSync('stat', ['--file-system', '--format=%T', directory], { encoding: 'utf8' }).trim();
}

function commit(): string {
  const { version } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string };
  try {
    const words = ['-C', projectRoot, 'rev-parse', '--short', 'HEAD'];
    return `${version} (${execFileSync('git', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()})`;
  } catch {
    return version;
  }
}
