/** backup_label and tablespace_map, which pg_basebackup and pg_backup_start leave in a backup. Source: xlogbackup.c. */

/** The WAL segment from which recovery starts, such as `000000010000000000000007`; undefined if the label has none. */
export function startSegment(label: string): string | undefined {
  return /^START WAL LOCATION: [0-9A-F]+\/[0-9A-F]+ \(file ([0-9A-F]{24})\)/m.exec(label)?.[1];
}

/** The byte of the WAL from which recovery starts, in its lower 32 bits: enough to know where in its segment. */
export function startOffset(label: string): number | undefined {
  const low = /^START WAL LOCATION: [0-9A-F]+\/([0-9A-F]{1,8}) /m.exec(label)?.[1];
  return low === undefined ? undefined : Number.parseInt(low, 16);
}

/** A tablespace: its OID, and where it was on the source machine. */
export interface MappedTablespace {
  readonly oid: string;
  readonly path: string;
}

/** The lines of tablespace_map: `OID PATH`, with a backslash before each newline and backslash of the path. */
export function parseTablespaceMap(text: string): MappedTablespace[] {
  return [...text.matchAll(/^(\d+) ((?:\\[\s\S]|[^\\\n])*)$/gm)].map(([, oid, path]) => ({
    oid: oid!,
    path: path!.replace(/\\([\s\S])/g, '$1'),
  }));
}
