import { randomBytes } from 'node:crypto';
import { complaint, type Finished, finish } from '../attach/program.ts';
import { exitCodes, UserError } from '../core/errors.ts';
import { withoutTarget } from './client-environment.ts';
import type { PostgresServer } from './postgres-server.ts';

/**
 * What a backup's roles, databases and functions could change about our own questions: names that mean another function,
 * a role that may do less, time-outs that end them.
 */
const OWN_SETTINGS = '-c search_path=pg_catalog -c role=none -c statement_timeout=0 -c lock_timeout=0';

/** Asks a server, through its own client programs. */
export class SqlClient {
  readonly #server: PostgresServer;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #ending: AbortSignal;
  /** Ends a row: names and values of a backup may hold any character but NUL, and none of them can guess it. */
  readonly #rowEnd = `\n${randomBytes(ROW_END_BYTES).toString('hex')}\n`;

  /** When `ending` is aborted, programs that run are ended. */
  constructor(
    server: PostgresServer,
    at: { readonly host: string; readonly port: number; readonly user: string; readonly ending: AbortSignal },
  ) {
    this.#server = server;
    this.#ending = at.ending;
    this.#environment = {
      LC_ALL: 'C',
      PGHOST: at.host,
      PGPORT: String(at.port),
      PGUSER: at.user,
      PGCONNECT_TIMEOUT: '60',
    };
  }

  /** Runs a client program to its end; with `isForeign` as an operator would, with the database's own settings. */
  run(program: string, words: readonly string[], { input = '', isForeign = false } = {}): Promise<Finished> {
    const settings = isForeign ? {} : { PGOPTIONS: OWN_SETTINGS };
    const environment = { ...this.#environment, ...settings };
    const client = this.#server.client(program, words, environment);
    return finish(client, { environment: withoutTarget(process.env), input, ending: this.#ending });
  }

  /**
   * The rows of a query's result, every value as text; NULL is the empty text. SQL that an operator gave is `isForeign`.
   * Rejects with UserError quoting psql.
   */
  async query(database: string, sql: string, { isForeign = false } = {}): Promise<string[][]> {
    const how = ['-X', '-q', '-A', '-t', '-w', '-v', 'ON_ERROR_STOP=1', '-z', '-R', this.#rowEnd];
    const words = [...how, '-d', connectionTo(database), '-f', '-'];
    const { status, stdout, stderr } = await this.run('psql', words, { input: sql, isForeign });
    if (status !== 0)
      throw new UserError(`Database ${database}: ${complaint(stderr)}`, { exitCode: exitCodes.failure });
    // Only between rows; behind the last there is a new line.
    const rows = stdout.replace(/\n$/, '').split(this.#rowEnd);
    return rows.filter((row) => row !== '').map((row) => row.split('\0'));
  }
}

const ROW_END_BYTES = 16;

/** A database by nothing but its name: one called `host=…` would be taken for where to connect. Source: libpq, "Connection Strings". */
function connectionTo(database: string): string {
  return `dbname='${database.replace(/['\\]/g, '\\$&')}'`;
}
