import type { CommandModule } from 'yargs';
import { listSessions, type Session } from '../attach/sessions.ts';
import type { GlobalArguments } from './arguments.ts';
import { formatTable } from './table.ts';

interface StatusArguments extends GlobalArguments {
  readonly json: boolean;
}

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: 'status',
  describe: 'List what is attached on this machine, and the PostgreSQL servers that run on snapshots',
  builder: (yargs) =>
    yargs.option('json', { describe: 'A JSON array instead of a table', type: 'boolean', default: false }) as never,
  handler: async ({ json }) => {
    const sessions = await listSessions();
    process.stdout.write(json ? `${JSON.stringify(sessions.map(toJson), undefined, 2)}\n` : toTable(sessions));
  },
};

function toJson({ record, isAlive }: Session): object {
  const { pidStart: _, ...told } = record;
  return { ...told, alive: isAlive };
}

const COLUMNS = ['KIND', 'EXPORT', 'SNAPSHOT', 'CLONE', 'DEVICE', 'MOUNT POINT', 'PID', 'STATE'];

function toTable(sessions: readonly Session[]): string {
  if (sessions.length === 0) return 'Nothing is attached.\n';
  const rows = sessions.map(({ record, isAlive }) => [
    record.kind,
    record.export || '(default)',
    record.snapshot?.slice(0, 8) ?? '-',
    record.clone ?? '-',
    record.device ?? '-',
    record.mountPoint ?? '-',
    String(record.pid),
    isAlive ? (record.readOnly ? 'read-only' : 'read-write') : 'dead: kloset-nbd cleanup',
  ]);
  return formatTable([COLUMNS, ...rows]);
}
