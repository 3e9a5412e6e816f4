import { mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { CLONE_FORMAT_VERSION, type CloneRecord, checkCloneName, newOverlayId } from '../clones/clone-record.ts';
import { CloneRegistry } from '../clones/clone-registry.ts';
import { RemoteClones } from '../clones/remote-clones.ts';
import { newReadCounters } from '../core/counters.ts';
import { UserError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';
import { nodeFileSystem } from '../device/file-system.ts';
import { type Part, type PlacedSelector, partsOf } from '../exports/composition.ts';
import { Repository } from '../kloset/repository.ts';
import { parseSelector } from '../kloset/selector.ts';
import { listSnapshots } from '../kloset/snapshot.ts';
import { type ClonesArguments, clonesDirectory, commandLog, ttlOption } from './clones-options.ts';
import { intoOption, type LayoutArguments, layoutOptions, layoutRequest } from './layout-options.ts';
import { chooseStore, openChosen } from './store.ts';

interface CreateArguments extends ClonesArguments, LayoutArguments {
  readonly name: string;
  readonly snapshot: string;
  readonly protect: boolean;
  readonly ttl: string | undefined;
}

export const createCloneCommand: CommandModule<object, CreateArguments> = {
  command: 'create <name> <snapshot>',
  describe: 'Make a clone of a snapshot; a server that has the directory exports it at once',
  builder: (yargs) =>
    layoutOptions(yargs)
      .positional('name', { describe: 'Name of the clone, and of its export', type: 'string', demandOption: true })
      .positional('snapshot', {
        describe:
          'Which snapshot: hex prefix of an id, latest, or tag:NAME; :PATH behind it makes that directory the root',
        type: 'string',
        demandOption: true,
      })
      .option('protect', { describe: 'Refuse reset, removal and expiry', type: 'boolean', default: false })
      .option('ttl', {
        describe: 'Remove the clone so long from now, such as 7d or 12h, once it is not connected',
        type: 'string',
        requiresArg: true,
      }) as unknown as Argv<CreateArguments>,
  handler: create,
};

async function create(given: CreateArguments): Promise<void> {
  const { name, snapshot, protect, ttl } = given;
  checkCloneName(name);
  const lifeMs = ttl === undefined ? undefined : ttlOption(ttl);
  const placed = { selector: parseSelector(snapshot), at: undefined };
  const into = intoOption(given.into);
  const layout = await layoutRequest(given);
  const directory = clonesDirectory(given);
  const { part, ...store } = await findPart(given, placed, into);
  const createdMs = Date.now();
  const record: CloneRecord = {
    formatVersion: CLONE_FORMAT_VERSION,
    name,
    overlayId: newOverlayId(),
    ...store,
    selector: snapshot,
    parts: [{ snapshot: part.header.id, path: part.path, at: part.at ?? null }],
    layout,
    createdMs,
    resetMs: null,
    expiresMs: lifeMs === undefined ? null : createdMs + lifeMs,
    isProtected: protect,
  };
  await makeDirectory(directory);
  await new CloneRegistry(directory, nodeFileSystem).create(record);
  process.stdout.write(`Clone "${name}" of snapshot ${part.header.id.slice(0, 8)} is made.\n`);
  const remote = await RemoteClones.connect(directory);
  await remote?.close();
  const option = given.clones === undefined ? '' : ` --clones ${directory}`;
  process.stderr.write(
    remote === undefined
      ? `"kloset-nbd serve${option}" exports it.\n`
      : `The running server (process ${remote.serverPid}) exports it.\n`,
  );
}

/** Reads no more of the store than it takes to know the snapshot; for a directory of it also whether that is there. */
async function findPart(
  given: CreateArguments,
  placed: PlacedSelector,
  into: string | undefined,
): Promise<Pick<CloneRecord, 'storeId' | 'isEncrypted'> & { readonly part: Part }> {
  const { store, ...chosen } = chooseStore(given, commandLog(given));
  if (placed.selector.path === undefined) {
    try {
      const repository = await Repository.open(store, { ...chosen, counters: newReadCounters() });
      try {
        const [part] = partsOf((await listSnapshots(repository)).snapshots, [placed], into);
        return { part: part!, ...describeStore(repository) };
      } finally {
        await repository.close();
      }
    } finally {
      await store.close();
    }
  }
  const opened = await openChosen({ store, ...chosen });
  try {
    const [part] = partsOf(opened.snapshots, [placed], into);
    await (await opened.openSource(part!.header, part!.path)).close();
    return { part: part!, ...describeStore(opened.repository) };
  } finally {
    await opened.close();
  }
}

function describeStore({ config }: Repository): Pick<CloneRecord, 'storeId' | 'isEncrypted'> {
  return { storeId: toHex(config.repositoryId), isEncrypted: config.encryption !== undefined };
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    const made = await mkdir(directory, { recursive: true, mode: 0o700 });
    if (made !== undefined) await nodeFileSystem.syncDirectory(resolve(directory, '..'));
  } catch (cause) {
    throw new UserError(`cannot make ${directory} for clones: ${(cause as Error).message}`, { cause });
  }
}
