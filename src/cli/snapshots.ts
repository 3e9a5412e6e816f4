import type { Argv, CommandModule } from 'yargs';
import { newReadCounters } from '../core/counters.ts';
import { formatBytes } from '../core/units.ts';
import { Repository } from '../kloset/repository.ts';
import { formatTime } from '../kloset/selector.ts';
import { listSnapshots, type SnapshotHeader } from '../kloset/snapshot.ts';
import type { GlobalArguments } from './arguments.ts';
import { chooseStore } from './store.ts';

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
        const snapshots = await listSnapshots(repository);
        process.stdout.write(
          given.json ? `${JSON.stringify(snapshots.map(toJson), undefined, 2)}\n` : toTable(snapshots),
        );
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

/** The columns of `plakar ls`, with a heading. */
function toTable(snapshots: readonly SnapshotHeader[]): string {
  if (snapshots.length === 0) return 'The store holds no snapshots.\n';
  const rows = snapshots.map((header) => [
    formatTime(header),
    header.id.slice(0, 8),
    formatBytes(header.totalBytes),
    header.tags.join(','),
    Buffer.from(header.importer.directory).toString(),
  ]);
  const table = [['TIME', 'SNAPSHOT', 'SIZE', 'TAGS', 'DIRECTORY'], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
