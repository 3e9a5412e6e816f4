import { complaint, type Finished, finish } from '../attach/program.ts';
import { exitCodes, UserError } from '../core/errors.ts';
import type { PostgresServer } from './postgres-server.ts';

const UNIT_SEPARATOR = '\x1f';

/** Asks a server, through its own client programs. */
export class SqlClient {
  readonly #server: PostgresServer;
  readonly #environment: Readonly<Record<string, string>>;

  constructor(server: PostgresServer, at: { readonly host: string; readonly port: number; readonly user: string }) {
    this.#server = server;
    this.#environment = {
      LC_ALL: 'C',
      PGHOST: at.host,
      PGPORT: String(at.port),
      PGUSER: at.user,
      PGCONNECT_TIMEOUT: '60',
    };
  }

  /** Runs a client program to its end. */
  run(program: string, words: readonly string[], input = ''): Promise<Finished> {
    return finish(this.#server.client(program, words, this.#environment), { input });
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
    const { status, stdout, stderr } = await this.run('psql', words, sql);
    if (status !== 0)
      throw new UserError(`Database ${database}: ${complaint(stderr)}`, { exitCode: exitCodes.failure });
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(UNIT_SEPARATOR));
  }
}
