/** Whether a backup is sound: every check that PostgreSQL has, on a clone that is thrown away. */
import { complaint } from '../attach/program.ts';
import { KlosetNbdError } from '../core/errors.ts';
import type { PgSession } from './pg-session.ts';

export interface DrillCheck {
  readonly name: string;
  /** `skipped`: it does not apply here; `error`: it could not be made; the text says why. */
  readonly result: 'passed' | 'failed' | 'skipped' | 'error';
  readonly text: string;
  readonly seconds: number;
}

export interface DrillOptions {
  /** SQL to run in `database` instead of counting rows. */
  readonly sql: string | undefined;
  readonly database: string | undefined;
  /** When it is aborted, the check that runs is ended, and no other begins. */
  readonly ending: AbortSignal;
  onCheck(check: DrillCheck): void;
}

/** The tables of users, as text that SQL takes. */
const TABLES = `
select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence = 'p' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
order by 1`;

/**
 * Runs all checks; stops the server for the last. Resolves to them in their order; a check that fails ends nothing. Rejects
 * with the reason of `ending`.
 */
export async function drill(session: PgSession, options: DrillOptions): Promise<DrillCheck[]> {
  const checks: DrillCheck[] = [];
  const check = async (name: string, work: () => Promise<Outcome>) => {
    const { ending } = options;
    ending.throwIfAborted();
    const started = performance.now();
    const outcome = await work().catch((error) => {
      if (!(error instanceof KlosetNbdError) || ending.aborted) throw error;
      return { result: 'failed' as const, text: error.message };
    });
    // What was ended says nothing of the backup.
    ending.throwIfAborted();
    const done = { name, ...outcome, seconds: (performance.now() - started) / 1000 };
    checks.push(done);
    options.onCheck(done);
  };
  const { databases } = session.facts;
  for (const database of databases) {
    await check(`pg_amcheck ${database}`, () => amcheck(session, database));
    if (options.sql === undefined) await check(`row counts ${database}`, () => countRows(session, database));
  }
  const { sql } = options;
  if (sql !== undefined) {
    const database = options.database ?? databases.find((name) => name === 'postgres') ?? databases[0]!;
    await check(`SQL in ${database}`, async () => {
      const rows = await session.sql.query(database, sql, { isForeign: true });
      return { result: 'passed', text: rows.map((row) => row.join(' | ')).join('\n') };
    });
  }
  await session.stop();
  await check('page checksums', () => checksums(session));
  return checks;
}

type Outcome = Pick<DrillCheck, 'result' | 'text'>;

/** Tables' pages and indexes' structure, heap against index included. In a sound database it says nothing. */
async function amcheck(session: PgSession, database: string): Promise<Outcome> {
  const { examination } = session;
  const major = examination.server.major;
  if (major < 14) return { result: 'skipped', text: `pg_amcheck exists since PostgreSQL 14; this is ${major}` };
  const [available] = await session.sql.query(database, "select 1 from pg_available_extensions where name = 'amcheck'");
  if (available === undefined)
    return { result: 'skipped', text: 'the extension amcheck is not installed here (Debian: postgresql-contrib)' };
  const words = ['--install-missing', '--heapallindexed', '-d', patternOf(database)];
  const { status, stdout, stderr } = await session.sql.run('pg_amcheck', words);
  if (status === 0) return { result: 'passed', text: '' };
  return { result: 'failed', text: complaint(stdout + stderr) };
}

/** A pattern that means that database alone. Source: psql's documentation, "Patterns". */
function patternOf(database: string): string {
  return `"${database.replaceAll('"', '""')}"`;
}

async function countRows(session: PgSession, database: string): Promise<Outcome> {
  const counts: string[] = [];
  for (const [table] of await session.sql.query(database, TABLES)) {
    const [row] = await session.sql.query(database, `select count(*) from ${table}`);
    counts.push(`${table} ${row![0]}`);
  }
  return { result: 'passed', text: counts.join('\n') };
}

async function checksums(session: PgSession): Promise<Outcome> {
  if (!session.examination.control.checksums) {
    return { result: 'skipped', text: 'the cluster was made without data checksums' };
  }
  const { status, stdout, stderr } = await session.runInside('pg_checksums', ['--check', '-D', session.dataDirectory]);
  const blocks = /Blocks scanned:\s+(\d+)/.exec(stdout)?.[1];
  if (status === 0) return { result: 'passed', text: `${blocks ?? '0'} pages` };
  return { result: 'failed', text: complaint(stderr + stdout) };
}
