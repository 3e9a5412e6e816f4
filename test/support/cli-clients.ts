/** NBD clients that this project did not write, run against a server. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { mustRun, type ProcessResult, run } from './cli.ts';
import { type Cleanup, projectRoot, temporaryFolder } from './fixtures.ts';
import { commandPath, findPythonWithLibnbd } from './requires.ts';

/** SHA-256 of all bytes of an export, as nbdcopy reads them. Needs requires('nbdcopy'). */
export async function sha256OfExport(uri: string): Promise<string> {
  const nbdcopy = spawn(commandPath('nbdcopy'), [uri, '-'], { stdio: ['ignore', 'pipe', 'pipe'] });
  const errors: Buffer[] = [];
  nbdcopy.stderr.on('data', (piece) => errors.push(piece));
  const ended = new Promise<number | null>((resolve) => nbdcopy.once('close', resolve));
  const hash = createHash('sha256');
  await pipeline(nbdcopy.stdout, hash);
  const exitCode = await ended;
  if (exitCode !== 0) throw new Error(`nbdcopy of ${uri} ended with ${exitCode}: ${Buffer.concat(errors)}`);
  return hash.digest('hex');
}

/** An export as an image file, sparse where it holds zeroes. Needs requires('nbdcopy'). */
export async function copyToImage(cleanup: Cleanup, uri: string): Promise<string> {
  const image = join(temporaryFolder(cleanup), 'image');
  await mustRun(commandPath('nbdcopy'), [uri, image]);
  return image;
}

/** What nbdinfo says of one export; rejects if the server refuses it. Needs requires('nbdinfo'). */
export async function describeExport(uri: string): Promise<ExportInfo> {
  return (await listWith('--json', uri))[0]!;
}

/** What nbdinfo says of every export. Needs requires('nbdinfo'). */
export function listExports(uri: string): Promise<readonly ExportInfo[]> {
  return listWith('--list', '--json', uri);
}

export interface ExportInfo {
  readonly 'export-name': string;
  readonly description?: string;
  readonly 'export-size': number;
  readonly is_read_only: boolean;
  readonly can_multi_conn: boolean;
  readonly can_flush: boolean;
  readonly can_fua: boolean;
}

async function listWith(...args: readonly string[]): Promise<readonly ExportInfo[]> {
  const answer: { exports: ExportInfo[] } = JSON.parse(await mustRun(commandPath('nbdinfo'), args));
  return answer.exports;
}

/**
 * Runs Python statements in nbdsh, with libnbd's handle `h` connected to `uri`; resolves to what they print. Needs
 * requires('python3-libnbd').
 */
export async function nbdsh(uri: string, code: string): Promise<string> {
  return (await mustRun(python(), nbdshArguments(uri, code))).trim();
}

/** As `nbdsh`, for statements that may fail. */
export function tryNbdsh(uri: string, code: string): Promise<ProcessResult> {
  return run(python(), nbdshArguments(uri, code));
}

/** What the command nbdsh runs, which itself takes any python3 on PATH, with the module or without. */
function nbdshArguments(uri: string, code: string): readonly string[] {
  return ['-m', 'nbd', '-u', uri, '-c', code];
}

function python(): string {
  const path = findPythonWithLibnbd();
  if (path === undefined) throw new Error("the test lacks a requires('python3-libnbd')");
  return path;
}

export interface DeviceComparison {
  /** Blocks of 4 KiB that were served with other bytes than the image's: their offsets. */
  readonly wrong: readonly number[];
  /** Blocks of 4 KiB that the server refused to read, with EIO. */
  readonly unreadable: number;
  readonly compared: number;
}

/** Compares every block of an export with an image file. Needs requires('python3-libnbd'). */
export async function compareWithImage(uri: string, image: string): Promise<DeviceComparison> {
  const script = join(projectRoot, 'test/e2e/compare-device.py');
  return JSON.parse(await mustRun(python(), [script, uri, image]));
}
