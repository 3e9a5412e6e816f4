import type { Argv, CommandModule } from 'yargs';
import { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import { Health } from '../core/health.ts';
import type { Log } from '../core/log.ts';
import { parsePlacedSelector } from '../exports/composition.ts';
import { OpenStore } from '../exports/open-store.ts';
import { SnapshotExports } from '../exports/snapshot-exports.ts';
import { StoreWatch } from '../exports/store-watch.ts';
import { REFRESH_MS_DEFAULT } from '../kloset/fetch-limits.ts';
import { NbdServer } from '../nbd/server.ts';
import { createLog } from '../observability/log.ts';
import type { MetricsServer } from '../observability/metrics-server.ts';
import { answerSupervisor, becomeWorker, passphraseFromSupervisor } from '../supervise/control.ts';
import { supervise } from '../supervise/supervisor.ts';
import { type Access, chooseAccess, openDoors, warnOfPlainDisks, workerAccess } from './access.ts';
import { type GlobalArguments, metricsOption, sizeOption, timerOption } from './arguments.ts';
import { type ClonesArguments, clonesOption } from './clones-options.ts';
import { chooseHydrateDirectory, type HydrateArguments, hydrateOptions, startHydration } from './hydrate-options.ts';
import { intoOption, type LayoutArguments, layoutOptions, layoutRequest } from './layout-options.ts';
import { type ListenArguments, listenOptions } from './listen-options.ts';
import { limitIsInFile } from './overlay-limit.ts';
import {
  isVolatile,
  type OverlayArguments,
  openOverlays,
  overlayOptions,
  overlaySettings,
  whereWritesGo,
} from './overlay-options.ts';
import { plakarContents } from './plakar-contents.ts';
import { profileCommands } from './profile-commands.ts';
import { type ReadArguments, readOptions } from './read-options.ts';
import { describeReport, makeReport } from './report.ts';
import { hintAtRestores } from './restore-hint.ts';
import { openServedClones } from './served-clones.ts';
import { type ServerParts, serverMetrics } from './server-metrics.ts';
import { openServerSession } from './server-session.ts';
import { reportOnSignal, runUntilSignal } from './signals.ts';
import { chooseStore, passphraseOf } from './store.ts';
import { topCommands } from './top.ts';
import { TopReports } from './top-report.ts';
import { startWarmUps, type WarmArguments, warmOption } from './warm-options.ts';

interface ServeArguments
  extends ClonesArguments,
    GlobalArguments,
    HydrateArguments,
    LayoutArguments,
    ListenArguments,
    OverlayArguments,
    ReadArguments,
    WarmArguments {
  readonly prefetch: readonly string[];
  readonly refresh: string;
  readonly snapshots: readonly string[];
}

export const serveCommand: CommandModule<object, ServeArguments> = {
  command: 'serve [snapshots..]',
  describe: 'Serve snapshots as disks over NBD; without SNAPSHOT all of the store',
  builder: (yargs) => options(yargs) as unknown as Argv<ServeArguments>,
  handler: serve,
};

function options(yargs: Argv<object>) {
  const positional = yargs.positional('snapshots', {
    describe:
      'Which to serve: hex prefix of an id, latest, or tag:NAME; :PATH behind it makes that directory the root. Those with =NAME behind it share one disk',
    type: 'string',
    array: true,
    default: [],
  });
  return hydrateOptions(readOptions(overlayOptions(listenOptions(layoutOptions(positional)))))
    .option('refresh', {
      describe: 'How often to look for new and deleted snapshots; 0: never',
      type: 'string',
      requiresArg: true,
      default: `${REFRESH_MS_DEFAULT / 60_000}m`,
    })
    .option('warm', warmOption)
    .option('clones', { ...clonesOption, describe: 'Directory of clones to export, too' })
    .option('prefetch', {
      describe: 'File or directory of the first disk to fetch in the background, before anybody reads it; repeatable',
      type: 'string',
      array: true,
      nargs: 1,
      requiresArg: true,
      default: [],
    })
    .example('$0 serve latest', 'serve the newest snapshot on 127.0.0.1:10809')
    .example('$0 serve tag:nightly:/data --owner postgres --overlay ./work', 'a directory of a snapshot, writes kept');
}

async function serve(given: ServeArguments): Promise<void> {
  const log = createLog(given.logLevel);
  let report = () => log.info({}, 'Still opening the store: there is nothing to report yet.');
  reportOnSignal(() => report());
  const isWorker = await becomeWorker();
  const access = isWorker ? workerAccess(given) : await chooseAccess(given, log);
  if (given.supervise) {
    report = () => undefined; // Its worker does.
    await superviseServer(given, access, log);
    return;
  }
  const closers = new Closers();
  try {
    const started = await start(given, { log, closers, access, isWorker });
    const { server, catalog, exports, clones, store, space, health, directory, warmUps } = started;
    if (isWorker) answerSupervisor(catalog);
    const signals = runUntilSignal();
    const nbd = server(signals.stop);
    closers.add(() => nbd.close());
    if (clones !== undefined) closers.add(await clones.serve(nbd, signals.stop));
    const partsOf = async (name: string) =>
      (await clones?.partsOf(name)) ??
      (await exports.partsOf(name))?.map(({ header, path }) => ({ snapshotId: header.id, path }));
    const overlayBytes = () => exports.overlayBytes + (clones?.dirtyBytes ?? 0);
    const snapshots = exports.served;
    const hydrating = await startHydration(given, { directory, store, snapshots, health, log, onBug: signals.stop });
    if (hydrating !== undefined) closers.add(() => hydrating.close());
    const hydration = () => hydrating?.hydration.status;
    const metrics = await serveMetrics(given, { store, server: nbd, health, overlayBytes, hydration }, log);
    if (metrics !== undefined) closers.add(() => metrics.close());
    report = () => {
      const values = makeReport({ store, overlayBytes: overlayBytes(), server: nbd, health, hydration: hydration() });
      log.info(values, describeReport(values));
    };
    const doors = await openDoors(access, nbd, log);
    const devices = () => [...exports.openDevices, ...(clones?.openDevices ?? [])];
    const reports = new TopReports({ store, devices, log });
    closers.add(hintAtRestores(reports, log));
    const commands = { ...topCommands(reports), ...profileCommands({ warmUps, partsOf }) };
    const session = { commands, uri: doors.uri, readOnly: given.readOnly, log, onBug: signals.stop };
    closers.add(await openServerSession(session));
    if (store.repository.codecParameters.encryption !== undefined) warnOfPlainDisks(access, doors, log);
    doors.announce();
    void doors.connectionEnded?.then(() => signals.stop(undefined));
    for (const { error } of store.damaged) log.warn({ ...error.details }, error.message);
    log.info({ store: store.repository.location, snapshots: store.snapshots.length }, whereWritesGo(given));
    await signals.stopped;
    log.info({}, 'Stopping: no new connections; what is in flight is finished.');
    space.endWaiting(); // Else what waits for room would keep us for ever.
    await hydrating?.close();
    await nbd.close();
    report();
    await closers.close();
    if (signals.bug !== undefined) throw signals.bug;
  } catch (error) {
    await closers.closeBecause(error);
  }
}

/** Rejects with UserError if the address of `--metrics` cannot be had. */
async function serveMetrics(given: ServeArguments, parts: ServerParts, log: Log): Promise<MetricsServer | undefined> {
  if (given.metrics === undefined) return undefined;
  // prom-client is loaded only where it is asked for: it takes a start some 60 ms.
  const [{ makeRegistry }, { MetricsServer }] = await Promise.all([
    import('../observability/metrics.ts'),
    import('../observability/metrics-server.ts'),
  ]);
  const health = () => parts.health.report();
  const registry = makeRegistry(serverMetrics(parts));
  const server = await MetricsServer.listen({ ...metricsOption(given.metrics), registry, health, log });
  log.info(
    { uri: server.uri, pid: process.pid },
    `Metrics are at ${server.uri}metrics, health at ${server.uri}healthz.`,
  );
  return server;
}

/** `--supervise`: a process of its own serves, this one keeps it alive and its clients connected. */
async function superviseServer(given: ServeArguments, access: Access, log: Log): Promise<void> {
  if (isVolatile(given)) {
    throw new UserError(
      '--supervise needs --overlay DIR, or --read-only: what is in memory only dies with the process that is replaced.',
    );
  }
  const [, script, ...argv] = process.argv;
  process.exitCode = await supervise({
    script: script!,
    argv,
    shared: given.shared,
    tls: access.tls,
    allowed: access.allowed,
    handsOnHangup: limitIsInFile(given.overlayLimit),
    log,
    passphrase: () => passphraseOf(given),
    async open(supervisor) {
      const doors = await openDoors(access, supervisor, log);
      void doors.connectionEnded?.then(() => supervisor.stop());
      return (isEncrypted) => {
        if (isEncrypted) warnOfPlainDisks(access, doors, log);
        doors.announce();
      };
    },
  });
}

/** `--prefetch`. Rejects with UserError for a path that is not there. */
async function startPrefetch(
  { prefetch, snapshots }: ServeArguments,
  { exports, closers }: { readonly exports: SnapshotExports; readonly closers: Closers },
): Promise<void> {
  if (prefetch.length === 0) return;
  if (snapshots.length === 0)
    throw new UserError('--prefetch needs to know the disk: name a snapshot, such as latest.');
  const stop = new AbortController();
  const { done } = await exports.prefetch(prefetch, { signal: stop.signal });
  closers.add(async () => {
    stop.abort();
    await done;
  });
}

interface Surroundings {
  readonly log: Log;
  readonly closers: Closers;
  readonly access: Access;
  readonly isWorker: boolean;
}

/** Opens everything that a server needs. What is open is in `closers`, also after a failure. */
async function start(given: ServeArguments, { log, closers, access, isWorker }: Surroundings) {
  const placed = given.snapshots.map(parsePlacedSelector);
  const selectors = placed.filter(({ at }) => at === undefined).map(({ selector }) => selector);
  const composed = placed.filter(({ at }) => at !== undefined);
  const into = intoOption(given.into);
  const layout = await layoutRequest(given);
  const idleMsMax = timerOption('idle-timeout', given.idleTimeout);
  const inflightBytes = sizeOption('inflight-memory', given.inflightMemory);
  const everyMs = timerOption('refresh', given.refresh);
  const { plakarLocation, ...chosen } = chooseStore(given, log);
  const directory = chooseHydrateDirectory(given, log);
  if (directory !== undefined) closers.add(() => directory.close());
  const store = await OpenStore.open({
    ...chosen,
    replica: directory,
    keys: isWorker ? { ...chosen.keys, passphrase: passphraseFromSupervisor } : chosen.keys,
    cacheBytesMax: sizeOption('cache-memory', given.cacheMemory),
    // Replies have a half of their own: a client that does not read must not stop the fetches of others.
    inflightBytesMax: inflightBytes / 2,
    contentSource: given.source === 'plakar' ? plakarContents({ ...given, location: plakarLocation }, log) : undefined,
  });
  closers.add(() => store.close());
  // A plakar's cat has no places to spare for guesses.
  const warmUps = startWarmUps(store, { isOn: given.warm && given.source === 'native', log });
  closers.add(() => warmUps.close());
  const health = new Health();
  const settings = await overlaySettings(given, { store, health, log });
  const overlays = await openOverlays(given, settings, { store, log });
  closers.add(() => overlays.close());
  const exports = await SnapshotExports.create({ store, selectors, composed, into, layout, overlays, log });
  closers.add(() => exports.close());
  if (placed.length > 0) await exports.openDefault();
  await startPrefetch(given, { exports, closers });
  const clones = await openServedClones(given, { store, settings, log });
  if (clones !== undefined) closers.add(() => clones.close());
  const catalog = clones === undefined ? exports : clones.before(exports);
  const watch = new StoreWatch({
    store,
    served: () => [...exports.served, ...(clones?.served ?? [])],
    health,
    log,
    everyMs,
  });
  closers.add(() => watch.close());
  // What is known of the store now is told at once; it was listed just before.
  await watch.judge();
  const server = (onBug: (bug: unknown) => void) =>
    new NbdServer({
      catalog,
      log,
      shared: given.shared,
      repliesInFlightBytesMax: inflightBytes / 2,
      limits: { idleMsMax },
      minimumBlockBytes: Number(given.minimumBlockSize) as 1 | 512 | 4096,
      tls: access.tls,
      allowed: access.allowed,
      onBug,
    });
  return { store, catalog, exports, clones, warmUps, server, health, directory, space: settings.overlayLimit };
}
