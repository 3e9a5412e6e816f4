/** From the command line to a PostgreSQL that runs on a snapshot: what `pg` and `drill` share. */
import type { Argv } from 'yargs';
import { type AttachMethod, attachMethods } from '../attach/disk.ts';
import { MemoryGroups } from '../attach/memory-groups.ts';
import type { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import {
  CACHE_MEMORY_BYTES_DEFAULT,
  INFLIGHT_MEMORY_BYTES_DEFAULT,
  OVERLAY_MEMORY_BYTES_DEFAULT,
} from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import { OpenStore } from '../exports/open-store.ts';
import { defuseDatabases } from '../postgres/databases.ts';
import { DockerServer } from '../postgres/docker-server.ts';
import { openPgSession, type PgSession } from '../postgres/pg-session.ts';
import { InstalledServer, type PostgresServer } from '../postgres/postgres-server.ts';
import { choosePrograms } from '../postgres/server-programs.ts';
import type { TracedPart, WarmUps } from '../warmup/warm-ups.ts';
import type { GlobalArguments } from './arguments.ts';
import { clonesDirectory } from './clones-options.ts';
import { EndSignals } from './end-signals.ts';
import { cloneDisk, throwAwayDisk } from './pg-disk.ts';
import { openSessionControl } from './server-session.ts';
import { chooseStore } from './store.ts';
import { topCommands } from './top.ts';
import { TopReports } from './top-report.ts';
import { startWarmUps, warmOption } from './warm-options.ts';

export interface PgStartArguments extends GlobalArguments {
  readonly snapshot: string | undefined;
  readonly clone?: string | undefined;
  readonly clones?: string | undefined;
  readonly pgBin: string | undefined;
  readonly docker: string | undefined;
  readonly dockerNetwork: string | undefined;
  readonly port: string;
  readonly force: boolean;
  readonly attachBy: AttachMethod | undefined;
  readonly keepSettings: boolean;
  readonly unsafeNetwork: boolean;
  readonly tablespace: readonly string[];
  readonly withoutTablespaces: boolean;
  readonly warm: boolean;
}

/** Adds the options to a command. */
export function pgStartOptions<T>(yargs: Argv<T>) {
  return yargs
    .positional('snapshot', {
      describe:
        'Which snapshot: hex prefix of an id, latest, or tag:NAME; :PATH behind it if it has several data directories',
      type: 'string',
      defaultDescription: 'latest',
    })
    .option('pg-bin', { describe: "Directory of PostgreSQL's programs", type: 'string', requiresArg: true })
    .option('docker', {
      describe: 'Run PostgreSQL in a container of IMAGE instead; without IMAGE postgres:MAJOR',
      type: 'string',
      conflicts: 'pg-bin',
    })
    .option('docker-network', {
      describe: "A network of Docker's for that container; none otherwise",
      type: 'string',
      requiresArg: true,
      implies: 'docker',
    })
    .option('warm', warmOption)
    .option('port', {
      describe: 'Number in the name of its Unix socket',
      type: 'string',
      requiresArg: true,
      default: '5432',
    })
    .option('force', {
      describe: 'Start on the copy of a running server that has no backup_label',
      type: 'boolean',
      default: false,
    })
    .option('attach-by', {
      describe: "The kernel's nbd client, nbdfuse and a loop device, or nbdfuse and fuse2fs",
      choices: attachMethods,
      defaultDescription: 'the first that works',
    })
    .option('keep-settings', {
      describe: "Use the backup's own settings and those of its roles, inside the namespace",
      type: 'boolean',
      default: false,
    })
    .option('unsafe-network', {
      describe: "No namespace: SQL inside the backup can reach this machine's network and files",
      type: 'boolean',
      default: false,
    })
    .option('tablespace', {
      describe: 'OID=PATH: where in the snapshot the content of a tablespace lies; repeatable',
      type: 'string',
      array: true,
      nargs: 1,
      default: [],
    })
    .option('without-tablespaces', {
      describe: 'Start without those whose content is not in the snapshot',
      type: 'boolean',
      default: false,
    });
}

/** A PostgreSQL on a snapshot, the store it is of, and the signals that end it. */
export interface StartedPg {
  readonly session: PgSession;
  readonly store: OpenStore;
  readonly warmUps: WarmUps;
  /** What of the snapshot is on the disk. */
  readonly part: TracedPart;
  readonly signals: EndSignals;
  /** Where what uses the database belongs, too. */
  readonly memory: MemoryGroups | undefined;
}

/**
 * What goes up is taken down by `closers`, also after a failure. Signals that come meanwhile stop it; before the store is
 * open, when nothing is up, they end the process as usual. Rejects with UserError.
 */
export async function startPg(
  given: PgStartArguments,
  { log, closers }: { log: Log; closers: Closers },
): Promise<StartedPg> {
  const tablespaces = new Map(given.tablespace.map(tablespaceOption));
  const port = portOption(given.port);
  const memory = await MemoryGroups.enter(`kloset-nbd-${process.pid}`);
  if (memory !== undefined) closers.add(() => memory.leave());
  const store = await OpenStore.open({
    ...chooseStore(given, log),
    cacheBytesMax: atMost(CACHE_MEMORY_BYTES_DEFAULT, memory),
    inflightBytesMax: atMost(INFLIGHT_MEMORY_BYTES_DEFAULT, memory),
  });
  closers.add(() => store.close());
  const warmUps = startWarmUps(store, { isOn: given.warm, needsTemplate1: true, log });
  closers.add(() => warmUps.close());
  const signals = new EndSignals();
  return signals.during(() => startOn(store, { given, warmUps, tablespaces, port, log, closers, signals, memory }));
}

/** The part of a small memory group that one of the server's uses of memory may have: the program itself needs half. */
const MEMORY_PART = 8;

function atMost(bytes: number, memory: MemoryGroups | undefined): number {
  return memory === undefined ? bytes : Math.min(bytes, Math.floor(memory.serverBytesMax / MEMORY_PART));
}

async function startOn(
  store: OpenStore,
  parts: {
    readonly given: PgStartArguments;
    readonly warmUps: WarmUps;
    readonly tablespaces: ReadonlyMap<string, string>;
    readonly port: number;
    readonly log: Log;
    readonly closers: Closers;
    readonly signals: EndSignals;
    readonly memory: MemoryGroups | undefined;
  },
): Promise<StartedPg> {
  const { given, warmUps, tablespaces, port, log, closers, signals, memory } = parts;
  const overlayBytesMax = atMost(OVERLAY_MEMORY_BYTES_DEFAULT, memory);
  const surroundings = { store, log, closers, overlayBytesMax };
  const disk =
    given.clone === undefined
      ? await throwAwayDisk(given.snapshot ?? 'latest', surroundings)
      : await cloneDisk(given.clone, {
          ...surroundings,
          directory: clonesDirectory({ clones: given.clones }),
          snapshot: given.snapshot,
        });
  const { force, attachBy: method, keepSettings, unsafeNetwork, withoutTablespaces } = given;
  const onBug = (bug: unknown) => signals.bug(bug);
  const chooseServer = (major: number) => chooseServerFor(major, given);
  const how = { chooseServer, force, method, keepSettings, unsafeNetwork, withoutTablespaces, tablespaces, port };
  const session = await openPgSession({ store, disk, log, onBug, ending: signals.ending, memory, ...how }, closers);
  const commands = topCommands(new TopReports({ store, devices: disk.openDevices, log }));
  closers.add(await openSessionControl(session.directory, { commands, log, onBug }));
  for (const warning of await defuseDatabases(session)) log.warn({}, warning);
  const part = { snapshotId: session.snapshotId, path: session.path };
  return { session, store, warmUps, part, signals, memory };
}

async function chooseServerFor(
  major: number,
  { docker, dockerNetwork, pgBin }: PgStartArguments,
): Promise<PostgresServer> {
  if (docker === undefined) return new InstalledServer(choosePrograms(major, pgBin));
  return DockerServer.choose(major, { image: docker === '' ? undefined : docker, network: dockerNetwork });
}

function tablespaceOption(text: string): [string, string] {
  const match = /^(\d+)=(\/.*)$/.exec(text);
  if (match === null)
    throw new UserError(`--tablespace ${text}: write OID=PATH with a path in the snapshot, such as 16384=/srv/space.`);
  return [match[1]!, match[2]!];
}

function portOption(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65535)
    throw new UserError(`--port ${text}: write a number from 1 to 65535.`);
  return port;
}
