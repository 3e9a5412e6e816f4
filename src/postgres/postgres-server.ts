/** Where a server of PostgreSQL comes from: programs installed here, or a container's image. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Finished, findProgram, finish } from '../attach/program.ts';
import type { ServerPrograms } from './server-programs.ts';

/** An account, as numbers. */
export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** As whom a server runs, and how a process becomes that: it refuses to be root. */
export interface ServerUser extends User {
  /** `self`: it is already; `drop`: root gives its rights up; `unmap`: 0 of a user namespace becomes itself again. */
  readonly by: 'self' | 'drop' | 'unmap';
}

/** Where a server finds its clone. Paths are the host's. */
export interface ServerPlace {
  /** The session's directory: configuration and socket are below it. */
  readonly directory: string;
  readonly snapshotRoot: string;
  readonly dataDirectory: string;
  readonly user: ServerUser;
  /** The words that run a program where the disk is mounted. */
  inside(words: readonly string[]): readonly string[];
}

export interface PostgresServer {
  readonly major: number;
  /** As `postgres --version` has it. */
  readonly version: string;
  /** Whom it must run as; undefined: the machine's own account for it. */
  readonly user: User | undefined;
  /** It brings its own mounts: the disk is mounted on the host, and no namespaces are made. */
  readonly hasOwnMounts: boolean;
  /** It brings its own network, too, which leads nowhere. */
  readonly isContained: boolean;
  /** What its commands are run with. */
  readonly environment: NodeJS.ProcessEnv;
  /** Locales it has, as `locale -a` spells them. */
  locales(): Promise<ReadonlySet<string>>;
  /** What pg_controldata says of the copy of global/pg_control in `directory`. */
  controlData(directory: string): Promise<Finished>;
  /** What `postgres -C` says of each name, a line each; `directory` has an empty postgresql.conf. */
  presets(names: readonly string[], directory: string): Promise<Finished>;
  /** Names of the libraries in its `$libdir`, without `.so`; undefined where that cannot be told. */
  libraries(): Promise<ReadonlySet<string> | undefined>;
  /** Path of the data directory as the server sees it. */
  dataDirectory(place: ServerPlace): string;
  /** The words that run one of its programs on the data directory; `isServer` for the one that stays. */
  command(program: string, words: readonly string[], place: ServerPlace, isServer?: boolean): readonly string[];
  /** The words that run one of its client programs, with `environment` for where the server is. */
  client(program: string, words: readonly string[], environment: Readonly<Record<string, string>>): readonly string[];
  /** The words that stop the server that runs in `place`, in order. */
  stop(place: ServerPlace): readonly string[];
}

/** $0: the server, $1: a directory with a configuration; then names. */
export const PRESETS_SCRIPT = 'd=$1; shift; for name; do "$0" -C "$name" -D "$d" || exit; done';

/** $0: pg_config. Lists what is in the directory that PostgreSQL calls `$libdir`. */
export const LIBRARIES_SCRIPT = 'd=$("$0" --pkglibdir) && ls "$d"';

/** Programs of this machine. */
export class InstalledServer implements PostgresServer {
  readonly major: number;
  readonly version: string;
  readonly user = undefined;
  readonly hasOwnMounts = false;
  readonly isContained = false;
  /** Nothing of ours that could change what a server does, or that it should not know. */
  readonly environment = { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C' };
  readonly #directory: string;

  constructor({ directory, major, version }: ServerPrograms) {
    this.#directory = directory;
    this.major = major;
    this.version = version;
  }

  async locales(): Promise<ReadonlySet<string>> {
    return lines(await finish(['locale', '-a']));
  }

  controlData(directory: string): Promise<Finished> {
    const environment = { ...process.env, LC_ALL: 'C' };
    return finish([join(this.#directory, 'pg_controldata'), directory], { environment });
  }

  presets(names: readonly string[], directory: string): Promise<Finished> {
    return finish(['sh', '-c', PRESETS_SCRIPT, join(this.#directory, 'postgres'), directory, ...names]);
  }

  async libraries(): Promise<ReadonlySet<string> | undefined> {
    return libraryNames(await finish(['sh', '-c', LIBRARIES_SCRIPT, join(this.#directory, 'pg_config')]));
  }

  dataDirectory(place: ServerPlace): string {
    return place.dataDirectory;
  }

  command(
    program: string,
    words: readonly string[],
    { inside, user }: ServerPlace,
    isServer = false,
  ): readonly string[] {
    const own = [join(this.#directory, program), ...words];
    return inside(asUser(withParent(own, isServer ? 'QUIT' : 'TERM'), user));
  }

  client(program: string, words: readonly string[], environment: Readonly<Record<string, string>>): readonly string[] {
    const own = join(this.#directory, program);
    const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    return ['env', ...settings, existsSync(own) ? own : program, ...words];
  }

  stop(place: ServerPlace): readonly string[] {
    return this.command('pg_ctl', ['stop', '-D', place.dataDirectory, '-m', 'fast', '-w', '-s'], place);
  }
}

/** The words that run a program so that it gets a signal when the process dies that started it. */
function withParent(words: readonly string[], signal: 'QUIT' | 'TERM'): readonly string[] {
  const setpriv = findProgram('setpriv');
  return setpriv === undefined ? words : [setpriv, '--pdeathsig', signal, '--', ...words];
}

/** The words that run a program as that user, who can gain no rights. */
function asUser(words: readonly string[], { uid, gid, by }: ServerUser): readonly string[] {
  if (by === 'self') return words;
  if (by === 'unmap') return ['unshare', '--user', `--map-user=${uid}`, `--map-group=${gid}`, '--', ...words];
  const rights = ['--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--clear-groups'];
  return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, ...rights, '--', ...words];
}

/** What LIBRARIES_SCRIPT said. */
export function libraryNames(listed: Finished): ReadonlySet<string> | undefined {
  if (listed.status !== 0) return undefined;
  return new Set([...lines(listed)].filter((name) => name.endsWith('.so')).map((name) => name.slice(0, -'.so'.length)));
}

/** The lines of what a program said. */
export function lines({ stdout }: Finished): ReadonlySet<string> {
  return new Set(stdout.split('\n').filter((line) => line !== ''));
}
