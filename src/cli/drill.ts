import { readFile, writeFile } from 'node:fs/promises';
import type { Argv, CommandModule } from 'yargs';
import { Closers } from '../core/closers.ts';
import { CorruptStoreError, exitCodes, type KlosetNbdError, UserError } from '../core/errors.ts';
import { formatBytes } from '../core/units.ts';
import { createLog } from '../observability/log.ts';
import { type DrillCheck, drill } from '../postgres/drill.ts';
import type { PgSession } from '../postgres/pg-session.ts';
import { toJunit } from './junit.ts';
import { type PgStartArguments, pgStartOptions, startPg } from './pg-start.ts';

interface DrillArguments extends PgStartArguments {
  readonly sql: string | undefined;
  readonly database: string | undefined;
  readonly junit: string | undefined;
  readonly json: boolean;
}

/** What a drill found. */
export interface DrillReport {
  readonly snapshot: string;
  /** Undefined where no server could be started. */
  readonly version: string | undefined;
  readonly sound: boolean;
  readonly checks: readonly DrillCheck[];
  /** Bytes read from the store, and decoded. */
  readonly storeBytes: number;
  readonly decodedBytes: number;
  readonly seconds: number;
}

export const drillCommand: CommandModule<object, DrillArguments> = {
  command: 'drill [snapshot]',
  describe: 'Prove a backup: boot it on a throw-away clone, recover, check every page, table and index',
  builder: (yargs) => options(yargs) as unknown as Argv<DrillArguments>,
  handler: runDrill,
};

function options(yargs: Argv<object>) {
  return pgStartOptions(yargs)
    .option('sql', { describe: 'A file of SQL to run instead of counting rows', type: 'string', requiresArg: true })
    .option('database', { describe: 'The database for --sql', type: 'string', requiresArg: true })
    .option('junit', { describe: 'Write a JUnit XML report there', type: 'string', requiresArg: true })
    .option('json', { describe: 'One JSON object instead of lines', type: 'boolean', default: false })
    .epilogue('Exit codes: 0 sound, 65 damage found, 1 it could not run.');
}

async function runDrill(given: DrillArguments): Promise<void> {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const log = createLog(given.logLevel);
  const sql = given.sql === undefined ? undefined : await readSql(given.sql);
  const closers = new Closers();
  try {
    const { session, store, signals } = await startPg(given, { log, closers }).catch(async (error) => {
      const why = whyNotStarted(error);
      if (why !== undefined) await writeReport(given, neverStarted(given, why, seconds()));
      throw why?.error ?? error;
    });
    const onCheck = (check: DrillCheck) => {
      if (!given.json) process.stdout.write(describe(check));
    };
    const start: DrillCheck = { name: START, result: 'passed', text: '', seconds: seconds() };
    onCheck(start);
    const { ending } = signals;
    const { database } = given;
    const checks = await signals.during(() => drill(session, { sql, database, ending, onCheck }));
    const { storeBytes, decodedBytes } = store.counters;
    const report = makeReport(session, [start, ...checks], { storeBytes, decodedBytes, seconds: seconds() });
    await writeReport(given, report);
    if (!given.json) process.stdout.write(summary(report));
    if (!report.sound) process.exitCode = exitCodes.damagedData;
    await closers.close();
    signals.throwBug();
  } catch (error) {
    await closers.closeBecause(error);
  }
}

/** The first check: that a server recovers the backup and answers. */
const START = 'start and recovery';

interface NotStarted {
  readonly result: 'failed' | 'error';
  readonly error: KlosetNbdError;
}

/**
 * A backup whose bytes are damaged fails the drill; what is missing here is no fault of the backup. Undefined: the drill was
 * ended, or has a bug.
 */
function whyNotStarted(error: unknown): NotStarted | undefined {
  if (error instanceof CorruptStoreError) return { result: 'failed', error };
  if (!(error instanceof UserError) || error.exitCode > SIGNALS_FROM) return undefined;
  if (error.exitCode === exitCodes.damagedData) return { result: 'failed', error };
  const message = `The drill could not run: ${error.message}`;
  return { result: 'error', error: new UserError(message, { exitCode: exitCodes.failure, cause: error }) };
}

/** Exit codes above it stand for signals. */
const SIGNALS_FROM = 128;

function neverStarted(given: DrillArguments, { result, error }: NotStarted, seconds: number): DrillReport {
  const checks = [{ name: START, result, text: error.message, seconds }];
  const snapshot = given.snapshot ?? 'latest';
  return { snapshot, version: undefined, sound: false, checks, storeBytes: 0, decodedBytes: 0, seconds };
}

/** For programs; what people read is printed as it is found. */
async function writeReport({ junit, json }: DrillArguments, report: DrillReport): Promise<void> {
  if (junit !== undefined) await writeFile(junit, toJunit(report));
  if (json) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
}

async function readSql(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause) => {
    throw new UserError(`--sql ${path} cannot be read: ${(cause as Error).message}`, { cause });
  });
}

function makeReport(
  session: PgSession,
  checks: readonly DrillCheck[],
  cost: Pick<DrillReport, 'storeBytes' | 'decodedBytes' | 'seconds'>,
): DrillReport {
  const sound = checks.every(({ result }) => result !== 'failed');
  return { snapshot: session.snapshotId, version: session.examination.server.version, sound, checks, ...cost };
}

function describe({ name, result, text, seconds }: DrillCheck): string {
  const lines = text === '' ? '' : `\n${text.replace(/^/gm, '         ')}`;
  return `${result.padEnd(8)} ${name} (${seconds.toFixed(1)} s)${lines}\n`;
}

function summary({ sound, snapshot, storeBytes, seconds }: DrillReport): string {
  const verdict = sound ? 'is sound' : 'is DAMAGED';
  return `Snapshot ${snapshot.slice(0, 8)} ${verdict}: ${seconds.toFixed(1)} s, ${formatBytes(storeBytes)} read from the store.\n`;
}
