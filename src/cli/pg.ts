import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import type { Argv, CommandModule } from 'yargs';
import { findProgram } from '../attach/program.ts';
import { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import { createLog } from '../observability/log.ts';
import { withoutTarget } from '../postgres/client-environment.ts';
import type { PgSession } from '../postgres/pg-session.ts';
import { createReader } from '../postgres/reader-role.ts';
import type { TracedPart, WarmUps } from '../warmup/warm-ups.ts';
import { timerOption } from './arguments.ts';
import { clonesOption } from './clones-options.ts';
import type { EndSignals } from './end-signals.ts';
import { type PgStartArguments, pgStartOptions, startPg } from './pg-start.ts';
import { printable } from './printable.ts';

interface PgArguments extends PgStartArguments {
  readonly '--'?: readonly string[];
  readonly json: boolean;
  readonly readOnlyRole: boolean;
  readonly idle: string | undefined;
  readonly profile: boolean;
}

export const pgCommand: CommandModule<object, PgArguments> = {
  command: 'pg [snapshot]',
  describe: 'Start PostgreSQL on a snapshot, on a throw-away clone; run what follows -- against it, or wait for Ctrl-C',
  builder: (yargs) => options(yargs) as unknown as Argv<PgArguments>,
  handler: pg,
};

function options(yargs: Argv<object>) {
  return pgStartOptions(yargs)
    .option('clone', {
      describe: 'Start on this clone, made if there is none of the name; what is changed stays',
      type: 'string',
      requiresArg: true,
    })
    .option('clones', clonesOption)
    .option('json', { describe: 'Print one line of JSON when it is ready', type: 'boolean', default: false })
    .option('read-only-role', {
      describe: 'Connect as a role that can read everything and write nothing',
      type: 'boolean',
      default: false,
    })
    .option('profile', {
      describe:
        'Keep what is read until COMMAND ends (without one: until it is ready) for the next start; see "profile"',
      type: 'boolean',
      default: false,
    })
    .option('idle', {
      describe: 'End when nobody was connected for so long, such as 15m',
      type: 'string',
      requiresArg: true,
    })
    .example('$0 pg latest', 'start it, print how to connect, wait for Ctrl-C')
    .example("$0 pg tag:nightly -- psql -c 'select count(*) from photo'", 'ask one thing')
    .example('$0 pg latest -- pg_dump -t photo | psql live', 'bring one table back');
}

async function pg(given: PgArguments): Promise<void> {
  const log = createLog(given.logLevel);
  const command = given['--'] ?? [];
  if (given.json && command.length > 0)
    throw new UserError('--json prints to standard output, which belongs to COMMAND.');
  const idleMs = given.idle === undefined ? undefined : timerOption('idle', given.idle);
  const closers = new Closers();
  try {
    const { session, store, warmUps, part, signals, memory } = await startPg(given, { log, closers });
    const user = given.readOnlyRole ? await createReader(session) : session.facts.superuser;
    if (command.length > 0) {
      process.exitCode = await runCommand(
        memory?.database(withEnd(command)) ?? withEnd(command),
        session,
        user,
        signals,
      );
      if (given.profile) await recordProfile(warmUps, part, log);
    } else {
      if (given.profile) await recordProfile(warmUps, part, log);
      process.stdout.write(given.json ? `${JSON.stringify(toJson(session, user))}\n` : describe(session, user));
      await Promise.race([signals.asked, session.ended, idle(session, idleMs)]);
    }
    const { storeBytes } = store.counters;
    log.info(
      { storeBytes },
      `Fetched ${formatBytes(storeBytes)} from the store; stopping PostgreSQL and taking the disk down.`,
    );
    await closers.close();
    signals.throwBug();
  } catch (error) {
    await closers.closeBecause(error);
  }
}

async function recordProfile(warmUps: WarmUps, part: TracedPart, log: Log): Promise<void> {
  for (const { source, chunkCount, bytes } of await warmUps.record([part])) {
    log.info({ source, chunks: chunkCount, bytes }, `Recorded the profile of ${source}: ${chunkCount} chunks`);
  }
}

/** Runs COMMAND on this side of the namespace; resolves to its exit status, as a shell tells it. */
async function runCommand(
  [name, ...words]: readonly string[],
  session: PgSession,
  user: string,
  signals: EndSignals,
): Promise<number> {
  const database = process.env.PGDATABASE ?? session.facts.databases.find((each) => each === 'postgres');
  const child = spawn(name!, words, {
    stdio: 'inherit',
    env: {
      ...withoutTarget(process.env),
      PGHOST: session.host,
      PGPORT: String(session.port),
      PGUSER: user,
      ...(database === undefined ? {} : { PGDATABASE: database }),
    },
  });
  // Ctrl-C reaches it by itself: both are in the terminal's foreground. Whoever ends us from elsewhere means both.
  signals.onSignal((signal) => signal !== 'SIGINT' && child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', (cause) => reject(new UserError(`${name} cannot be started: ${cause.message}`, { cause })));
    child.on('close', (status, signal) => resolve(status ?? 128 + constants.signals[signal!]));
  });
}

/** The words that run it so that it ends when this process is killed, where there is a program for that. */
function withEnd([name, ...words]: readonly string[]): readonly string[] {
  const path = name!.includes('/') ? name : findProgram(name!);
  const setpriv = findProgram('setpriv');
  if (path === undefined || setpriv === undefined || !existsSync(path)) return [name!, ...words];
  return [setpriv, '--pdeathsig', 'TERM', '--', path, ...words];
}

/** How many times within its length an idle time is looked at. */
const IDLE_LOOKS = 10;

/** Settles when nobody was connected for so long; never if there is no such limit. */
function idle(session: PgSession, idleMs: number | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (idleMs === undefined) return;
    let quietSinceMs = performance.now();
    const look = async () => {
      const [row] = await session.sql.query(
        session.facts.databases[0] ?? 'template1',
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
      );
      if (row?.[0] !== '0') quietSinceMs = performance.now();
      if (performance.now() - quietSinceMs >= idleMs) resolve();
      else setTimeout(again, idleMs / IDLE_LOOKS).unref();
    };
    const again = () => void look().catch(reject);
    again();
  });
}

function describe(session: PgSession, user: string): string {
  const { host, port, examination, facts, snapshotId } = session;
  const database = facts.databases.includes('postgres') ? 'postgres' : (facts.databases[0] ?? 'template1');
  const names = facts.databases.map((name) => printable(Buffer.from(name))).join(', ');
  return [
    `ready postgresql:///?host=${encodeURIComponent(host)}&port=${port}&user=${encodeURIComponent(user)}`,
    `${examination.server.version} on snapshot ${snapshotId.slice(0, 8)}, databases ${names}. Connect with:`,
    `  psql ${['-h', host, '-p', String(port), '-U', user, '-d', database].map(shellWord).join(' ')}`,
    session.clone === undefined
      ? 'Ctrl-C ends it; what was changed is then gone.'
      : `Ctrl-C ends it; what was changed stays in the clone ${session.clone}.`,
    '',
  ].join('\n');
}

/** What could move a terminal's cursor, or turn a line around. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/** A word as bash takes it. */
function shellWord(text: string): string {
  if (/^[\w./@%+-]+$/.test(text)) return text;
  if (text.search(UNPRINTABLE) === -1) return `'${text.replaceAll("'", "'\\''")}'`;
  const hex = (found: string) => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return `$'${text.replace(/[\\']/g, '\\$&').replace(UNPRINTABLE, hex)}'`;
}

function toJson(session: PgSession, user: string): object {
  const { host, port, facts, examination, snapshotId, isContained } = session;
  const { path, server } = examination;
  return {
    host,
    port,
    user,
    databases: facts.databases,
    snapshot: snapshotId,
    dataDirectory: path,
    version: server.version,
    contained: isContained,
  };
}
