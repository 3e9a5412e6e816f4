import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { complaint, finish } from '../attach/program.ts';
import { exitCodes, UserError } from '../core/errors.ts';
import type { ServerPrograms } from './server-programs.ts';

const UNIT_SEPARATOR = '\x1f';

/** Asks a server, through its own psql. */
export class SqlClient {
  readonly #psql: string;
  readonly #environment: NodeJS.ProcessEnv;

  constructor(at: { programs: ServerPrograms; host: string; port: number; user: string }) {
    const own = join(at.programs.directory, 'psql');
    this.#psql = existsSync(own) ? own : 'psql';
    this.#environment = {
      PATH: process.env.PATH,
      LC_ALL: 'C',
      PGHOST: at.host,
      PGPORT: String(at.port),
      PGUSER: at.user,
      PGCONNECT_TIMEOUT: '60',
    };
  }

  /** The rows of a query's result, every value as text; NULL is the empty text. Rejects with UserError quoting psql. */
  async query(database: string, sql: string): Promise<string[][]> {
    const words = [
      '-X',
      '-q',
      '-A',
      '-t',
      '-w',
      '-v',
      'ON_ERROR_STOP=1',
      '-F',
      UNIT_SEPARATOR,
      '-d',
      database,
      '-f',
      '-',
    ];
    const { status, stdout, stderr } = await finish([this.#psql, ...words], {
      environment: this.#environment,
      input: sql,
    });
    if (status !== 0)
      throw new UserError(`Database ${database}: ${complaint(stderr)}`, { exitCode: exitCodes.failure });
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(UNIT_SEPARATOR));
  }
}
