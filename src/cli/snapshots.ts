import type { Argv, CommandModule } from 'yargs';
import { newReadCounters } from '../core/counters.ts';
import { formatBytes } from '../core/units.ts';
import { Repository } from '../kloset/repository.ts';
import { formatTime } from '../kloset/selector.ts';
import { type DamagedSnapshot, listSnapshots, type SnapshotHeader } from '../kloset/snapshot.ts';
import type { GlobalArguments } from './arguments.ts';
import { chooseStore } from './store.ts';
import { formatTable } from './table.ts';

interface SnapshotsArguments extends GlobalArguments {
  readonly json: boolean;
}

export const snapshotsCommand: CommandModule<object, SnapshotsArguments> = {
  command: 'snapshots',
  describe: 'List the snapshots of the store, newest first',
  builder: (yargs) =>
    yargs.option('json', {
      describe: 'One JSON array instead of a table',
      type: 'boolean',
      default: false,
    }) as unknown as Argv<SnapshotsArguments>,
  handler: async (given) => {
    const { store, ...chosen } = chooseStore(given);
    try {
      const repository = await Repository.open(store, { ...chosen, counters: newReadCounters() });
      try {
        const { snapshots, damaged } = await listSnapshots(repository);
        const json = [...snapshots.map(toJson), ...damaged.map(damagedToJson)];
        process.stdout.write(given.json ? `${JSON.stringify(json, undefined, 2)}\n` : toTable(snapshots, damaged));
      } finally {
        await repository.close();
      }
    } finally {
      await store.close();
    }
  },
};

function toJson(header: SnapshotHeader): object {
  return {
    id: header.id,
    timestamp: formatTime(header),
    name: header.name,
    tags: header.tags,
    totalBytes: header.totalBytes,
    importer: {
      type: header.importer.type,
      origin: header.importer.origin,
      directory: Buffer.from(header.importer.directory).toString(),
    },
  };
}

function damagedToJson({ id, error }: DamagedSnapshot): object {
  return { id, damaged: error.message };
}

/** The columns of `plakar ls`, with a heading; below it what cannot be opened. */
function toTable(snapshots: readonly SnapshotHeader[], damaged: readonly DamagedSnapshot[]): string {
  const lost = damaged.map(({ error }) => `${error.message}\n`).join('');
  if (snapshots.length === 0) return lost === '' ? 'The store holds no snapshots.\n' : lost;
  const rows = snapshots.map((header) => [
    formatTime(header),
    header.id.slice(0, 8),
    formatBytes(header.totalBytes),
    header.tags.join(','),
    Buffer.from(header.importer.directory).toString(),
  ]);
  return formatTable([['TIME', 'SNAPSHOT', 'SIZE', 'TAGS', 'DIRECTORY'], ...rows]) + lost;
}
