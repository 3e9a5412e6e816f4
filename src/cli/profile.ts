import type { Argv, CommandModule } from 'yargs';
import type { StoreCache } from '../cache/store-cache.ts';
import { newReadCounters } from '../core/counters.ts';
import { UserError } from '../core/errors.ts';
import { formatBytes } from '../core/units.ts';
import { Repository } from '../kloset/repository.ts';
import { parseSelector, selectSnapshot } from '../kloset/selector.ts';
import { listSnapshots, type SnapshotHeader } from '../kloset/snapshot.ts';
import { type Profile, profileBytes, readProfile, removeProfile, sourceName } from '../warmup/profile.ts';
import type { RecordedProfile } from '../warmup/warm-ups.ts';
import { countOption, type GlobalArguments } from './arguments.ts';
import { connectServer } from './server-session.ts';
import { chooseStore } from './store.ts';
import { formatTable } from './table.ts';

interface RecordArguments extends GlobalArguments {
  readonly export: string | undefined;
  readonly begin: boolean;
  readonly pid: string | undefined;
}

interface ShowArguments extends GlobalArguments {
  readonly snapshot: string | undefined;
  readonly json: boolean;
}

interface ForgetArguments extends GlobalArguments {
  readonly snapshot: string | undefined;
  readonly all: boolean;
}

export const profileCommand: CommandModule = {
  command: 'profile',
  describe: 'Keep what was read of a snapshot until now, and fetch it ahead at the next serve of it or a later one',
  builder: (yargs) =>
    yargs
      .command(recordCommand)
      .command(showCommand)
      .command(forgetCommand)
      .demandCommand(1, 'Name what to do: record, show or forget.'),
  handler: () => {},
};

const recordCommand: CommandModule<object, RecordArguments> = {
  command: 'record [export]',
  describe: 'Keep what was read of an export of the running server since it was opened',
  builder: (yargs) =>
    yargs
      .positional('export', { describe: "The export's name", type: 'string', defaultDescription: 'the default export' })
      .option('pid', {
        describe: 'Process id of the server, where several run',
        type: 'string',
        requiresArg: true,
      })
      .option('begin', {
        describe: 'Forget what was read so far: the next "record" keeps what is read from now on',
        type: 'boolean',
        default: false,
      }) as unknown as Argv<RecordArguments>,
  handler: record,
};

const showCommand: CommandModule<object, ShowArguments> = {
  command: 'show [snapshot]',
  describe: 'List the profiles of the store; with SNAPSHOT the chunks of its profile, in order',
  builder: (yargs) =>
    yargs
      .positional('snapshot', { describe: 'A snapshot of the source', type: 'string' })
      .option('json', { describe: 'JSON instead of text', type: 'boolean', default: false }) as never,
  handler: show,
};

const forgetCommand: CommandModule<object, ForgetArguments> = {
  command: 'forget [snapshot]',
  describe: "Remove the profile of a snapshot's source, or all of the store",
  builder: (yargs) =>
    yargs
      .positional('snapshot', { describe: 'A snapshot of the source', type: 'string' })
      .option('all', { describe: 'Those of every source', type: 'boolean', default: false }) as never,
  handler: forget,
};

async function record({ export: name = '', begin, pid }: RecordArguments): Promise<void> {
  const wanted = pid === undefined ? undefined : countOption('pid', pid, { min: 1, max: 2 ** 22 });
  const server = await connectServer(wanted, ['serve']);
  try {
    const told = await server.call(begin ? 'profile.begin' : 'profile.record', { export: name });
    if (!begin) process.stdout.write((told as RecordedProfile[]).map(describeRecorded).join(''));
  } finally {
    server.close();
  }
}

function describeRecorded({ source, snapshot, chunkCount, bytes }: RecordedProfile): string {
  return `Recorded the profile of ${source}: ${chunkCount} chunks of ${formatBytes(bytes)} that were read of ${snapshot.slice(0, 8)}.\n`;
}

/** A source that has a profile. */
interface Found {
  readonly header: SnapshotHeader;
  readonly profile: Profile;
}

async function show(given: ShowArguments): Promise<void> {
  await withCache(given, async (cache, headers) => {
    const found: Found[] = [];
    for (const header of headers) {
      const profile = await readProfile(cache, header);
      if (profile !== undefined) found.push({ header, profile });
    }
    if (given.snapshot !== undefined) return showChunks(given, found);
    process.stdout.write(given.json ? `${JSON.stringify(found.map(toJson), undefined, 2)}\n` : toTable(found));
  });
}

function showChunks({ snapshot, json }: ShowArguments, [found]: readonly Found[]): void {
  if (found === undefined) throw new UserError(`There is no profile for the source of ${snapshot}.`);
  const chunks = found.profile.chunks.map(({ path, offset, lengthBytes }) => ({
    path: Buffer.from(path).toString(),
    offset,
    lengthBytes,
  }));
  const rows = chunks.map((chunk) => [chunk.path, String(chunk.offset), String(chunk.lengthBytes)]);
  const text = json
    ? `${JSON.stringify({ ...toJson(found), chunks }, undefined, 2)}\n`
    : formatTable([['PATH', 'OFFSET', 'BYTES'], ...rows]);
  process.stdout.write(text);
}

async function forget(given: ForgetArguments): Promise<void> {
  if ((given.snapshot === undefined) === !given.all) {
    throw new UserError('Name a snapshot whose profile is to be forgotten, or say --all.');
  }
  await withCache(given, async (cache, headers) => {
    for (const header of headers) await removeProfile(cache, header);
  });
}

/** Opens the store and hands over its cache, and a snapshot of each source: of the one that is named, or of all. */
async function withCache(
  given: GlobalArguments & { readonly snapshot: string | undefined },
  use: (cache: StoreCache, headers: readonly SnapshotHeader[]) => Promise<void>,
): Promise<void> {
  const { store, ...chosen } = chooseStore(given);
  try {
    const repository = await Repository.open(store, { ...chosen, counters: newReadCounters() });
    try {
      if (repository.cache === undefined)
        throw new UserError('Profiles are kept with the cache: do without --no-cache.');
      const { snapshots, damaged } = await listSnapshots(repository);
      const bySource = new Map(snapshots.map((header) => [sourceName(header), header]));
      const headers =
        given.snapshot === undefined
          ? [...bySource.values()]
          : [selectSnapshot(snapshots, parseSelector(given.snapshot), damaged)];
      await use(repository.cache, headers);
    } finally {
      await repository.close();
    }
  } finally {
    await store.close();
  }
}

function toJson({ header, profile }: Found): object {
  return {
    source: sourceName(header),
    snapshot: profile.snapshotId,
    recorded: new Date(profile.recordedMs).toISOString(),
    chunkCount: profile.chunks.length,
    bytes: profileBytes(profile),
  };
}

function toTable(found: readonly Found[]): string {
  if (found.length === 0) return 'No profile has been recorded.\n';
  const rows = found.map(({ header, profile }) => [
    sourceName(header),
    profile.snapshotId.slice(0, 8),
    new Date(profile.recordedMs).toISOString(),
    String(profile.chunks.length),
    formatBytes(profileBytes(profile)),
  ]);
  return formatTable([['SOURCE', 'SNAPSHOT', 'RECORDED', 'CHUNKS', 'SIZE'], ...rows]);
}
