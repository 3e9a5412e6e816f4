import { UserError } from '../core/errors.ts';

/** What pg_control says of a cluster. Source: the output of pg_controldata in the C locale. */
export interface ControlData {
  /** Such as `in production` or `shut down`. */
  readonly state: string;
  /** First WAL segment that recovery without a backup label needs. */
  readonly redoSegment: string;
  readonly pageBytes: number;
  readonly walPageBytes: number;
  /** Pages of a large relation's file, of which it has several. */
  readonly filePages: number;
  readonly walSegmentBytes: number;
  readonly checksums: boolean;
  /** Settings that recovery needs at least as large as they were, by name. */
  readonly recoverySettings: ReadonlyMap<string, string>;
}

/** pg_controldata's words for settings. */
const settingWords: Readonly<Record<string, string>> = {
  'wal_level setting': 'wal_level',
  'max_connections setting': 'max_connections',
  'max_worker_processes setting': 'max_worker_processes',
  'max_wal_senders setting': 'max_wal_senders',
  'max_prepared_xacts setting': 'max_prepared_transactions',
  'max_locks_per_xact setting': 'max_locks_per_transaction',
};

/** Throws UserError if that is not what pg_controldata prints. */
export function parseControlData(text: string): ControlData {
  const fields = new Map(
    text.split('\n').flatMap((line) => {
      const colon = line.indexOf(':');
      return colon === -1 ? [] : [[line.slice(0, colon).trim(), line.slice(colon + 1).trim()] as const];
    }),
  );
  const field = (name: string) => {
    const value = fields.get(name);
    if (value === undefined) throw new UserError(`pg_controldata does not tell "${name}": is pg_control whole?`);
    return value;
  };
  return {
    state: field('Database cluster state'),
    redoSegment: field("Latest checkpoint's REDO WAL file"),
    pageBytes: Number(field('Database block size')),
    walPageBytes: Number(field('WAL block size')),
    filePages: Number(field('Blocks per segment of large relation')),
    walSegmentBytes: Number(field('Bytes per WAL segment')),
    checksums: field('Data page checksum version') !== '0',
    recoverySettings: new Map(Object.entries(settingWords).map(([words, name]) => [name, field(words)])),
  };
}
