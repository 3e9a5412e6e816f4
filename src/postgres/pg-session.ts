/** From a snapshot to a PostgreSQL that answers: served, attached, mounted, prepared, recovered, started. */
import { chmod, chown, mkdir } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { type AttachMethod, type ExportAddress, mountDisk, unmountDisk } from '../attach/disk.ts';
import type { MemoryGroups } from '../attach/memory-groups.ts';
import { type Finished, finish } from '../attach/program.ts';
import { Sandbox } from '../attach/sandbox.ts';
import { createSession, removeSession, type SessionRecord, startOf, writeRecord } from '../attach/sessions.ts';
import { startWatcher } from '../attach/watcher.ts';
import type { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import type { ExportCatalog } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import { contentBytesOf, type SnapshotTree } from '../core/snapshot-tree.ts';
import type { OpenStore } from '../exports/open-store.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { NbdServer } from '../nbd/server.ts';
import { findFifos, prepareFiles } from './clone-files.ts';
import { Cluster, type ClusterFacts, RefusedSettingsError, recoverAndDefuse } from './cluster.ts';
import { containerOf, DockerServer } from './docker-server.ts';
import type { Examination } from './examination.ts';
import { checkSpace, type WrittenTo } from './free-space.ts';
import type { PostgresServer, ServerUser, User } from './postgres-server.ts';
import { ownedDirectory, writeConfiguration } from './server-configuration.ts';
import { SqlClient } from './sql-client.ts';
import { planStart } from './start-plan.ts';

/** The disk to start on, and what it is made of. */
export interface PgDisk {
  /** By which messages know it. */
  readonly name: string;
  /** The clone that keeps what is written; undefined: it is thrown away. */
  readonly clone: string | undefined;
  readonly header: SnapshotHeader;
  /** The directory of the snapshot that is on the disk, and where it lies there: '' for the disk's root. */
  readonly path: string;
  readonly place: string;
  /** Where below that directory the data directory is; undefined: it is the only one. */
  readonly within: string | undefined;
  /** The same with more of the snapshot, for what links of the data directory lead to; undefined: there is no more. */
  readonly wider: PgDisk | undefined;
  /** Whose its files are; undefined for a new disk, whose files get the owner that `open` is given. */
  readonly owner: User | 'recorded' | undefined;
  readonly exportName: string;
  /** Undefined for a clone that has been recovered already. */
  readonly writtenTo: WrittenTo | undefined;
  /** Makes it ready to be served; a new one has files of so many bytes. */
  open(owner: User, contentBytes: number): Promise<ExportCatalog>;
}

export interface PgOptions {
  /** Stays the caller's. */
  readonly store: OpenStore;
  readonly disk: PgDisk;
  readonly log: Log;
  /** Finds the server for data of that major version; rejects with UserError. */
  readonly chooseServer: (major: number) => Promise<PostgresServer>;
  readonly port: number;
  readonly force: boolean;
  readonly method: AttachMethod | undefined;
  /** The backup's own settings act, as far as the namespace lets them. */
  readonly keepSettings: boolean;
  /** No namespace: PostgreSQL sees the host's network and files. */
  readonly unsafeNetwork: boolean;
  readonly tablespaces: ReadonlyMap<string, string>;
  readonly withoutTablespaces: boolean;
  readonly memory: MemoryGroups | undefined;
  /** When it is aborted, starting stops as soon as it can. */
  readonly ending: AbortSignal;
  onBug(bug: unknown): void;
}

/** A PostgreSQL on a snapshot, and everything below it. */
export interface PgSession {
  /** Of its record, and of what it makes. */
  readonly directory: string;
  /** Directory of its Unix socket: what PGHOST takes. */
  readonly host: string;
  readonly port: number;
  readonly dataDirectory: string;
  readonly facts: ClusterFacts;
  readonly examination: Examination;
  readonly snapshotId: string;
  /** The directory of the snapshot that is on the disk. */
  readonly path: string;
  readonly clone: string | undefined;
  readonly isContained: boolean;
  readonly logFile: string;
  readonly sql: SqlClient;
  /** Resolves when the server ended, whoever ended it. */
  readonly ended: Promise<void>;
  /** Stops the server in order; the disk stays. Idempotent. */
  stop(): Promise<void>;
  /** Runs one of PostgreSQL's programs where the data directory is, as the server's user. */
  runInside(program: string, words: readonly string[]): Promise<Finished>;
}

/** What goes up is taken down by `closers`, also after a failure: the caller closes them. Rejects with UserError. */
export async function openPgSession(options: PgOptions, closers: Closers): Promise<PgSession> {
  const { log, ending } = options;
  const directory = await createSession();
  closers.add(() => removeSession(directory));
  const found: SessionRecord = {
    kind: 'pg',
    pid: process.pid,
    pidStart: startOf(process.pid) ?? 0,
    export: options.disk.name,
    clone: options.disk.clone,
    uri: '',
    snapshot: options.disk.header.id,
    readOnly: false,
    memoryGroups: options.memory?.directory,
  };
  await writeRecord(directory, found);

  const { disk, source, examination, links } = await planStart(options, directory, closers);
  const { header } = disk;
  const container = examination.server instanceof DockerServer ? containerOf(directory) : undefined;
  const record = { ...found, container };
  await writeRecord(directory, record);
  const { walBytes } = examination;
  const narrow = disk.writtenTo && (await checkSpace(disk.writtenTo, { walBytes, force: options.force }));
  const warnings = narrow === undefined ? examination.warnings : [...examination.warnings, narrow];
  for (const warning of warnings) log.warn({ snapshot: header.id }, warning);
  const { server } = examination;
  log.info(
    { snapshot: header.id, path: examination.path },
    `Snapshot ${header.id.slice(0, 8)} has a data directory at ${examination.path}; starting ${server.version} on it`,
  );

  const user = await serverUser(source.tree, disk, examination);
  ending.throwIfAborted();
  const sandbox = server.hasOwnMounts ? undefined : await startSandbox(options, directory, closers);
  if (server.hasOwnMounts && !server.isContained) log.warn({}, ON_A_NETWORK);
  if (sandbox === undefined) {
    const watcher = startWatcher(directory);
    closers.add(() => watcher.dismiss());
  }
  // Whatever is waited for in it ends with it.
  const endSandbox = () => void sandbox?.close();
  ending.addEventListener('abort', endSandbox);
  ending.throwIfAborted();
  const inside = (words: readonly string[]) => (sandbox === undefined ? words : sandbox.inside(words));
  const owner = sandbox?.userIsRoot === true ? { uid: 0, gid: 0 } : user;
  const contentBytes = contentBytesOf(source.tree);
  const address = await serve(disk, options, { directory, owner, contentBytes }, closers);
  const mountPoint = join(directory, 'mnt');
  await mkdir(mountPoint, { mode: 0o711 });
  const request = { address, mountPoint, workDirectory: directory, readOnly: false, inside, detached: false, ending };
  const mounted = await mountDisk({ ...request, method: options.method });
  closers.add(() => unmountDisk(mounted, { workDirectory: directory, inside }));
  ending.throwIfAborted();
  const { method, device } = mounted;
  log.info({ method, device }, `Attached by ${describeMethod(method)} as ${device}`);

  const snapshotRoot = posix.join(mountPoint, disk.place);
  const dataDirectory = posix.join(snapshotRoot, examination.path).replace(/\/$/, '');
  // A container sees the data directory elsewhere: links in it must not depend on where that is.
  const linkBase = server.user === undefined ? undefined : snapshotRoot;
  const fifos = findFifos(source.tree);
  const files = { mountPoint, dataDirectory, snapshotRoot, linkBase, user: owner, inside, fifos };
  if (fifos.length > 0)
    log.info({ count: fifos.length }, `Left out: ${fifos.length} named pipes, on which a server would wait for ever`);
  const setAside = await prepareFiles(files, links);
  if (setAside.length > 0) log.info({ setAside }, `Set aside in the clone: ${setAside.join(', ')}`);
  const host = await ownedDirectory(join(directory, 'pg'), user);
  const configuration = await writeConfiguration(options, { examination, host, user, snapshotId: header.id });
  const insideDatabase = (words: readonly string[]) => options.memory?.database(inside(words)) ?? inside(words);
  const become = { ...user, by: howToBecome(sandbox) };
  const place = { directory, snapshotRoot, dataDirectory, user: become, inside: insideDatabase };
  const logFile = join(directory, 'postgresql.log');
  const clusterOptions = { server, place, configurationFile: configuration.file, logFile, ending };
  const recover = () => recoverAndDefuse(clusterOptions, !options.keepSettings);
  const facts = await recover().catch(async (error) => {
    if (!(error instanceof RefusedSettingsError) || !(await configuration.withdraw(error.names))) throw error;
    return recover();
  });
  for (const { role, database, setting } of facts.droppedRoleSettings) {
    const whose = [role && `role ${role}`, database && `database ${database}`].filter((text) => text).join(', ');
    log.info({ role, database, setting }, `Not used: ${setting} of ${whose || 'all roles'}`);
  }
  const cluster = await Cluster.start(clusterOptions);
  closers.add(() => cluster.stop());
  await closeToServer(host, sandbox);
  ending.removeEventListener('abort', endSandbox);
  await writeRecord(directory, { ...record, uri: address.uri, method, device, mountPoint, host, port: options.port });
  const sql = new SqlClient(server, { host, port: options.port, user: facts.superuser, ending });
  return {
    directory,
    host,
    port: options.port,
    dataDirectory: server.dataDirectory(place),
    facts,
    examination,
    snapshotId: header.id,
    path: disk.path,
    clone: disk.clone,
    isContained: sandbox !== undefined || server.isContained,
    logFile,
    sql,
    ended: cluster.ended,
    stop: () => cluster.stop(),
    runInside: (program, words) => finish(server.command(program, words, place), { ending }),
  };
}

const ON_A_NETWORK =
  'PostgreSQL is not contained: --docker-network. SQL inside the backup can reach what is on that network.';

async function startSandbox(options: PgOptions, directory: string, closers: Closers): Promise<Sandbox | undefined> {
  const { unsafeNetwork, log } = options;
  const warn = (why: string) =>
    log.warn(
      {},
      `PostgreSQL is not contained: ${why}. SQL inside the backup can reach this machine's network and files.`,
    );
  if (unsafeNetwork) {
    warn('--unsafe-network');
    return undefined;
  }
  const why = Sandbox.whyImpossible();
  if (why !== undefined) {
    warn(why);
    return undefined;
  }
  const sandbox = await Sandbox.start({ directory }).catch((error) => {
    if (!(error instanceof UserError)) throw error;
    warn(error.message);
    return undefined;
  });
  if (sandbox !== undefined) closers.add(() => sandbox.close());
  return sandbox;
}

/** Serves the disk on a socket of the session's own. */
async function serve(
  disk: PgDisk,
  { log, onBug }: PgOptions,
  { directory, owner, contentBytes }: { directory: string; owner: User; contentBytes: number },
  closers: Closers,
): Promise<ExportAddress> {
  const catalog = await disk.open(owner, contentBytes);
  const server = new NbdServer({ catalog, log, onBug });
  closers.add(() => server.close());
  const path = join(directory, 'nbd.sock');
  await server.listen({ path });
  const name = disk.exportName;
  return { uri: `nbd+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(path)}`, name, at: { path } };
}

/**
 * Whom PostgreSQL runs as, and whose the files on a new disk are: it refuses root, and files that are another's. Of a
 * clone that was made with its recorded owners it is the data directory's.
 */
async function serverUser(tree: SnapshotTree, disk: PgDisk, { dataDirectory, server }: Examination): Promise<User> {
  if (disk.owner === 'recorded') return { uid: tree.uid[dataDirectory]!, gid: tree.gid[dataDirectory]! };
  if (disk.owner !== undefined) return disk.owner;
  if (server.user !== undefined) return server.user;
  const uid = process.getuid!();
  if (uid !== 0) return { uid, gid: process.getgid!() };
  const { status, stdout } = await finish(['getent', 'passwd', 'postgres']);
  const [, , accountUid, accountGid] = stdout.split(':');
  if (status === 0) return { uid: Number(accountUid), gid: Number(accountGid) };
  throw new UserError(
    'This machine has no user postgres, as whom PostgreSQL could run: create it (useradd -r postgres).',
  );
}

function howToBecome(sandbox: Sandbox | undefined): ServerUser['by'] {
  if (process.getuid?.() === 0) return 'drop';
  return sandbox === undefined ? 'self' : 'unmap';
}

/**
 * From here on what runs in the server must not change the directory of its socket: a link in the socket's place would lead
 * clients, which have the host's network and files, into a live cluster. As an ordinary user without namespaces it can.
 */
async function closeToServer(socketDirectory: string, sandbox: Sandbox | undefined): Promise<void> {
  await sandbox?.seal();
  if (process.getuid?.() !== 0) return;
  await chown(socketDirectory, 0, 0);
  await chmod(socketDirectory, 0o711);
}

function describeMethod(method: AttachMethod): string {
  return { nbd: "the kernel's nbd client", loop: 'nbdfuse and a loop device', fuse: 'nbdfuse and fuse2fs' }[method];
}
