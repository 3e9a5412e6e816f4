import { basename, join } from 'node:path';
import { complaint, type Finished, finish, requireProgram } from '../attach/program.ts';
import { exitCodes, UserError } from '../core/errors.ts';
import {
  LIBRARIES_SCRIPT,
  libraryNames,
  lines,
  type PostgresServer,
  PRESETS_SCRIPT,
  type ServerPlace,
  type User,
} from './postgres-server.ts';

/** The image of a major version. Source: Docker Official Images. */
const IMAGE = 'postgres';
const NO_NETWORK = 'none';

export interface DockerOptions {
  /** Undefined: the official one of the major version. */
  readonly image: string | undefined;
  /** Name of a network of the engine; undefined: none. */
  readonly network: string | undefined;
}

/** A PostgreSQL in a container, on a disk that the host has mounted. */
export class DockerServer implements PostgresServer {
  readonly major: number;
  readonly version: string;
  readonly user: User;
  readonly hasOwnMounts = true;
  readonly isContained: boolean;
  /** The client's own settings say where the engine is; a container sees none of it. */
  readonly environment = process.env;
  readonly #image: string;
  readonly #network: string;
  /** Where the image keeps its data: it differs by major version. */
  readonly #home: string;

  private constructor(parts: {
    image: string;
    network: string;
    major: number;
    version: string;
    user: User;
    home: string;
  }) {
    this.#image = parts.image;
    this.#network = parts.network;
    this.#home = parts.home;
    this.major = parts.major;
    this.version = parts.version;
    this.user = parts.user;
    this.isContained = parts.network === NO_NETWORK;
  }

  /** Asks the image what it is. Rejects with UserError: no engine, no such image, another major version. */
  static async choose(
    major: number,
    { image = `${IMAGE}:${major}`, network = NO_NETWORK }: DockerOptions,
  ): Promise<DockerServer> {
    requireProgram('docker');
    const script = 'id -u postgres; id -g postgres; echo "$PGDATA"; postgres --version';
    const { status, stdout, stderr } = await finish(run(NO_NETWORK, ['--entrypoint', 'sh', image, '-c', script]));
    const [uid, gid, home, version] = stdout.trim().split('\n');
    if (status !== 0 || version === undefined) {
      throw new UserError(`The image ${image} cannot be used: ${complaint(stderr) || 'it has no PostgreSQL'}`, {
        exitCode: exitCodes.failure,
      });
    }
    const found = Number(/\(PostgreSQL\) (\d+)/.exec(version)?.[1]);
    if (found !== major) {
      throw new UserError(
        `The backup is of PostgreSQL ${major}; the image ${image} has ${version}. Name one of ${major}.`,
        {
          exitCode: exitCodes.version,
        },
      );
    }
    const user = { uid: Number(uid), gid: Number(gid) };
    return new DockerServer({ image, network, major, version, user, home: home! });
  }

  async locales(): Promise<ReadonlySet<string>> {
    return lines(await finish(run(NO_NETWORK, ['--entrypoint', 'locale', this.#image, '-a'])));
  }

  controlData(directory: string): Promise<Finished> {
    const options = [...bind(directory, directory, true), '--env', 'LC_ALL=C', '--entrypoint', 'pg_controldata'];
    return finish(run(NO_NETWORK, [...options, this.#image, directory]));
  }

  presets(names: readonly string[], directory: string): Promise<Finished> {
    const options = [...bind(directory, directory, true), '--entrypoint', 'sh', this.#image];
    return finish(run(NO_NETWORK, [...options, '-c', PRESETS_SCRIPT, 'postgres', directory, ...names]));
  }

  async libraries(): Promise<ReadonlySet<string> | undefined> {
    const words = ['--entrypoint', 'sh', this.#image, '-c', LIBRARIES_SCRIPT, 'pg_config'];
    return libraryNames(await finish(run(NO_NETWORK, words)));
  }

  dataDirectory(): string {
    return this.#home;
  }

  command(program: string, words: readonly string[], place: ServerPlace, isServer = false): readonly string[] {
    const { uid, gid } = place.user;
    const socket = join(place.directory, 'pg');
    const options = [
      '--interactive',
      ...(isServer ? ['--name', containerOf(place.directory)] : []),
      '--user',
      `${uid}:${gid}`,
      '--env',
      'LC_ALL=C',
      // As the links and the configuration have them: by the host's paths.
      ...bind(place.snapshotRoot, place.snapshotRoot),
      ...bind(socket, socket),
      ...bind(`${socket}-conf`, `${socket}-conf`, true),
      ...bind(place.dataDirectory, this.#home),
      '--entrypoint',
      program,
    ];
    return run(this.#network, [...options, this.#image, ...words]);
  }

  client(program: string, words: readonly string[], environment: Readonly<Record<string, string>>): readonly string[] {
    const settings = Object.entries(environment).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
    const session = environment.PGHOST!.replace(/\/pg$/, '');
    return ['docker', 'exec', '--interactive', ...settings, containerOf(session), program, ...words];
  }

  stop(place: ServerPlace): readonly string[] {
    return ['docker', 'kill', '--signal', 'INT', containerOf(place.directory)];
  }
}

/** The name of a session's container, by which `cleanup` finds it. */
export function containerOf(directory: string): string {
  return `kloset-nbd-${basename(directory)}`;
}

/** A container that can gain no rights, and is gone when it ends. */
function run(network: string, words: readonly string[]): readonly string[] {
  return [
    'docker',
    'run',
    '--rm',
    '--network',
    network,
    '--security-opt',
    'no-new-privileges',
    '--cap-drop',
    'ALL',
    ...words,
  ];
}

function bind(source: string, target: string, readOnly = false): readonly string[] {
  return ['--mount', `type=bind,source=${source},target=${target}${readOnly ? ',readonly' : ''}`];
}
