/** A server on the data directory of a clone. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { complaint, finish } from '../attach/program.ts';
import { exitCodes, UserError } from '../core/errors.ts';
import type { PostgresServer, ServerPlace } from './postgres-server.ts';

export interface ClusterOptions {
  readonly server: PostgresServer;
  readonly place: ServerPlace;
  readonly configurationFile: string;
  /** All that the server says goes there. */
  readonly logFile: string;
  /** When it is aborted, recovery and start stop. */
  readonly ending: AbortSignal;
}

/** What single-user mode tells of a cluster, after recovery. */
export interface ClusterFacts {
  /** The bootstrap superuser's name. */
  readonly superuser: string;
  readonly databases: readonly string[];
  /** Settings of ALTER ROLE and ALTER DATABASE that were taken away. */
  readonly droppedRoleSettings: readonly {
    readonly role: string;
    readonly database: string;
    readonly setting: string;
  }[];
}

/** Settings of roles and databases that stay: those that only change how answers look or are found. */
const ROLE_SETTINGS_KEPT = [
  'bytea_output',
  'client_encoding',
  'client_min_messages',
  'datestyle',
  'default_text_search_config',
  'extra_float_digits',
  'idle_in_transaction_session_timeout',
  'intervalstyle',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'lock_timeout',
  'random_page_cost',
  'role',
  'search_path',
  'seq_page_cost',
  'statement_timeout',
  'timezone',
  'work_mem',
  'xmloption',
];

/** On a search path of the backup's, `lower` and `pg_db_role_setting` could be a function and a table of its own. */
const SINGLE_SETTINGS = ['-c', 'search_path=pg_catalog', '-c', 'exit_on_error=on'];

/** Before each line of ours, since single-user mode prints its prompt, too. */
const MARK = 'kloset-nbd:';

/**
 * Run in single-user mode, in which settings of roles, databases and sessions do not act and no trigger of an event
 * fires: what would act on the first session is gone before there is one. Source: postinit.c, process_settings.
 */
function factsScript(): string {
  const kept = ROLE_SETTINGS_KEPT.map((name) => `'${name}'`).join(',');
  const copy = (kind: string, columns: string, rest: string) =>
    `COPY (SELECT '${MARK}${kind}', ${columns} ${rest}) TO STDOUT`;
  return [
    copy('superuser', 'rolname', 'FROM pg_authid WHERE oid = 10'),
    copy('database', 'datname', 'FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname'),
    copy(
      'dropped',
      "coalesce(rolname, ''), coalesce(datname, ''), s",
      `FROM pg_db_role_setting t LEFT JOIN pg_authid r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase, unnest(setconfig) s WHERE lower(split_part(s, '=', 1)) NOT IN (${kept}) ORDER BY 2, 3, 4`,
    ),
    `UPDATE pg_db_role_setting SET setconfig = ARRAY(SELECT s FROM unnest(setconfig) s WHERE lower(split_part(s, '=', 1)) IN (${kept}))`,
    `DELETE FROM pg_db_role_setting WHERE setconfig = '{}'`,
  ].join('\n');
}

/** Settings that this server does not take: a time zone that is not installed here, a value of another minor version. */
export class RefusedSettingsError extends UserError {
  /** In lower case. */
  readonly names: readonly string[];

  constructor(names: readonly string[]) {
    super(`PostgreSQL does not take the backup's values of ${names.join(', ')}.`, { exitCode: exitCodes.failure });
    this.names = names;
  }
}

/** Source: guc.c, parse_and_validate_value and ProcessConfigFileInternal. */
export function refusedSettings(said: string): string[] {
  const lines = said.matchAll(
    /(?:(?:invalid value for|outside the valid range for) parameter|unrecognized configuration parameter) "([^"]+)"/g,
  );
  return [...new Set([...lines].map(([, name]) => name!.toLowerCase()))];
}

/**
 * Recovers the cluster in single-user mode and takes dangerous settings of roles away. Rejects with RefusedSettingsError for its
 * configuration, else with UserError quoting the server.
 */
export async function recoverAndDefuse(options: ClusterOptions, dropSettings: boolean): Promise<ClusterFacts> {
  const lines = factsScript().split('\n');
  const script = dropSettings ? lines : lines.slice(0, 2);
  const words = ['--single', ...whereItIs(options), ...SINGLE_SETTINGS, 'template1'];
  const { status, stdout, stderr } = await finish(options.server.command('postgres', words, options.place), {
    input: `${script.join('\n')}\n`,
    environment: options.server.environment,
    ending: options.ending,
  });
  if (status !== 0) {
    const refused = refusedSettings(stderr);
    if (refused.length > 0) throw new RefusedSettingsError(refused);
    const exitCode = DAMAGE.test(stderr) ? exitCodes.damagedData : exitCodes.failure;
    throw serverError('PostgreSQL cannot recover the backup', stderr, exitCode);
  }
  const rows = stdout.split('\n').flatMap((line) => {
    const at = line.indexOf(MARK);
    return at === -1 ? [] : [parseCopied(line.slice(at + MARK.length))];
  });
  const of = (kind: string) => rows.filter((row) => row[0] === kind);
  const superuser = of('superuser')[0]?.[1];
  if (superuser === undefined) throw serverError('PostgreSQL does not tell who its superuser is', stderr);
  return {
    superuser,
    databases: of('database').map((row) => row[1]!),
    droppedRoleSettings: of('dropped').map((row) => ({ role: row[1]!, database: row[2]!, setting: row[3]! })),
  };
}

/** A line of COPY's text format. Source: PostgreSQL's documentation, COPY, "Text Format". */
export function parseCopied(line: string): string[] {
  const special: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
  const plain = (text: string) => text.replace(/\\(.)/gs, (_, escaped: string) => special[escaped] ?? escaped);
  return line.split('\t').map(plain);
}

export class Cluster {
  readonly #options: ClusterOptions;
  readonly #server: ChildProcess;
  /** Resolves when the server has ended. */
  readonly ended: Promise<void>;

  private constructor(options: ClusterOptions, server: ChildProcess, ended: Promise<void>) {
    this.#options = options;
    this.#server = server;
    this.ended = ended;
  }

  /** Resolves when the server takes connections. Rejects with UserError quoting it. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const { server, place, ending } = options;
    ending.throwIfAborted();
    const [command, ...given] = server.command('postgres', whereItIs(options), place, true);
    const child = spawn(command!, given, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: server.environment,
      // Ctrl-C is for this process, which stops the server in order.
      detached: true,
    });
    const log = createWriteStream(options.logFile, { flags: 'a', mode: 0o600 });
    child.stderr!.pipe(log);
    const ended = new Promise<void>((resolve) => {
      child.once('close', () => resolve());
      child.once('error', () => resolve());
    });
    const endServer = () => void child.kill('SIGQUIT');
    ending.addEventListener('abort', endServer);
    let said = '';
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stderr! }).on('line', (line) => {
        said += `${line}\n`;
        if (line.includes('database system is ready to accept connections')) resolve();
      });
      void ended.then(() => reject(serverError('PostgreSQL did not start', said)));
    });
    ending.removeEventListener('abort', endServer);
    return new Cluster(options, child, ended);
  }

  get isRunning(): boolean {
    return this.#server.exitCode === null && this.#server.signalCode === null;
  }

  /** Ends all sessions and the server. Idempotent. Rejects with UserError if it does not end. */
  async stop(): Promise<void> {
    if (!this.isRunning) return;
    const { server, place } = this.#options;
    const { status, stderr } = await finish(server.stop(place), { environment: server.environment });
    if (status !== 0 && this.isRunning) throw serverError('PostgreSQL does not stop', stderr);
    await this.ended;
  }
}

/** The words that name the data directory and the configuration. */
function whereItIs({ server, place, configurationFile }: ClusterOptions): string[] {
  return ['-D', server.dataDirectory(place), '-c', `config_file=${configurationFile}`];
}

const FATAL = /\b(?:FATAL|PANIC|ERROR):\s+(.*)/;
/** What explains the line before it. */
const EXPLAINS = /\b(?:DETAIL|HINT):\s+(.*)/;

/**
 * What it says where the data is at fault, and neither this machine (locales, memory, space) nor a setting. Source: xlogrecovery.c,
 * relmapper.c, md.c, controldata_utils.c.
 */
const DAMAGE = new RegExp(
  [
    'PANIC: {2}(?!.*(?:No space left|Permission denied))',
    'FATAL: {2}.*(?:checkpoint record|redo location|WAL ends before|recovery ended before)',
    '(?:FATAL|ERROR): {2}.*(?:invalid page|invalid data|incorrect checksum|corrupted|read \\d+ of \\d+|No such file or directory)',
  ].join('|'),
);

function serverError(what: string, said: string, exitCode: number = exitCodes.failure): UserError {
  const lines = said.split('\n');
  const at = lines.findLastIndex((line) => FATAL.test(line));
  const explained = lines.slice(at + 1).flatMap((line) => EXPLAINS.exec(line)?.[1] ?? []);
  const why = at === -1 ? complaint(said) : [FATAL.exec(lines[at]!)![1]!, ...explained].join('; ');
  return new UserError(`${what}: ${why || 'it said nothing'}`, { exitCode });
}
