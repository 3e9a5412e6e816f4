/** What is changed in a clone's files before a server starts on it. */
import { posix } from 'node:path';
import { run } from '../attach/program.ts';
import { entryPathBytes, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import type { LinkChange } from './links.ts';

/**
 * Files of a data directory that would have a server do what only the backup's own server should: follow or recover from
 * another, take over ALTER SYSTEM's settings, keep WAL for others, take a running server's place.
 */
const SET_ASIDE = [
  'postgresql.auto.conf',
  'recovery.conf',
  'recovery.signal',
  'standby.signal',
  'promote',
  'fallback_promote',
  'logrotate',
  'postmaster.pid',
  'postmaster.opts',
  'tablespace_map',
  'pg_replslot',
];

/** $1: the data directory, $2: where to set aside; then names. Prints what it moved. */
const SET_ASIDE_SCRIPT = `
set -e
data=$1; aside=$2; shift 2
# A link of the snapshot's would lead out of the clone.
[ ! -L "$aside" ] || { echo "$aside is a symlink" >&2; exit 1; }
mkdir -p "$aside"
for name; do
  [ -e "$data/$name" ] || [ -L "$data/$name" ] || continue
  if [ "$name" = pg_replslot ]; then
    [ -n "$(ls -A "$data/$name")" ] || continue
  fi
  rm -rf "$aside/$name"
  mv -T "$data/$name" "$aside/$name"
  echo "$name"
done
`;

/** For a server with the uid $1:$2 in $3: what it insists on. */
const COMPLETE_SCRIPT = `
set -e
for name in pg_replslot pg_tblspc pg_dynshmem pg_notify pg_serial pg_snapshots pg_stat pg_stat_tmp pg_subtrans pg_twophase \\
  pg_commit_ts pg_logical pg_logical/snapshots pg_logical/mappings; do
  [ -d "$3/$name" ] || install -d -m 0700 -o "$1" -g "$2" "$3/$name"
done
# It keeps a copy of its settings' files there.
[ -e "$3/postgresql.auto.conf" ] || install -m 0600 -o "$1" -g "$2" /dev/null "$3/postgresql.auto.conf"
`;

export interface CloneFiles {
  /** Where the disk is mounted, and the data directory on it. */
  readonly mountPoint: string;
  readonly dataDirectory: string;
  /** The snapshot's root on the disk. */
  readonly snapshotRoot: string;
  /** What links begin with: the snapshot's root as the server sees it. Undefined: they are relative. */
  readonly linkBase: string | undefined;
  readonly user: { readonly uid: number; readonly gid: number };
  /** What is removed, below `snapshotRoot`: bytes that begin with `/`. */
  readonly fifos: readonly Uint8Array[];
  inside(words: readonly string[]): readonly string[];
}

/** Every named pipe of a tree, as a path below its root: whoever opens one waits until somebody else does. */
export function findFifos(tree: SnapshotTree): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let entry = 1; entry < tree.length; entry++) {
    if (tree.type[entry] === entryTypes.fifo) found.push(entryPathBytes(tree, entry));
  }
  return found;
}

/**
 * Removes named pipes, sets files aside, in `set-aside` at the disk's root, and changes links. Resolves to the names of what was set aside. Can
 * be done again on the same clone.
 */
export async function prepareFiles(files: CloneFiles, links: readonly LinkChange[]): Promise<string[]> {
  const { mountPoint, dataDirectory, snapshotRoot, linkBase, user, inside, fifos } = files;
  const shell = (script: string, ...given: string[]) =>
    run(inside(['sh', '-c', script, 'sh', ...given]), { what: 'Preparing the data directory' });
  if (fifos.length > 0) {
    const paths = fifos.map((path) => Buffer.concat([Buffer.from(snapshotRoot), path, Buffer.of(0)]));
    // Of another clone's life, one of them may be something else by now.
    const remove = 'for path; do [ ! -p "$path" ] || rm -f -- "$path"; done';
    await run(inside(['xargs', '-0', 'sh', '-c', remove, 'sh']), {
      input: Buffer.concat(paths),
      what: 'Removing named pipes',
    });
  }
  const aside = posix.join(mountPoint, 'set-aside');
  const moved = await shell(SET_ASIDE_SCRIPT, dataDirectory, aside, ...SET_ASIDE);
  await shell(COMPLETE_SCRIPT, String(user.uid), String(user.gid), dataDirectory);
  for (const change of links) {
    const link = posix.join(snapshotRoot, change.link);
    if (change.kind === 'drop') {
      await shell('rm -f "$1"', link);
      continue;
    }
    // Relative where that works: the next mount may be elsewhere.
    const target =
      linkBase === undefined
        ? posix.relative(posix.dirname(change.link), change.target)
        : posix.join(linkBase, change.target);
    await shell('ln -sfn "$1" "$2" && chown -h "$3:$4" "$2"', target, link, String(user.uid), String(user.gid));
  }
  return moved.split('\n').filter((name) => name !== '');
}
