/** Backups that pg_dump and pg_dumpall wrote: no server starts on them. */
import { entryName, entryTypes } from '../core/snapshot-tree.ts';
import type { Snapshot } from './examination.ts';

/** The directory format's table of contents, and the names people give to the others. */
const NAMES = /^toc\.dat$|\.(dump|pgdump|sql)(\.(gz|zst|lz4))?$/;
/** How the custom format, the tar format and SQL begin. Source: pg_backup_archiver.c, pg_backup_tar.c, pg_dumpall.c. */
const BEGINNINGS = /^(?:PGDMP|toc\.dat\0|--\n-- PostgreSQL database )/;
const BEGINNING_BYTES = 32;
/** So many files without such a name are opened. */
const OPENED_MAX = 16;

/** The first file that looks like a dump by its name, else by its beginning; undefined if there is none. */
export async function findLogicalDump({ tree, content }: Snapshot): Promise<number | undefined> {
  const unnamed: number[] = [];
  for (let entry = 0; entry < tree.length; entry++) {
    if (tree.type[entry] !== entryTypes.file) continue;
    if (NAMES.test(Buffer.from(entryName(tree, entry)).toString())) return entry;
    if (unnamed.length < OPENED_MAX && tree.sizeBytes[entry]! >= BEGINNING_BYTES) unnamed.push(entry);
  }
  for (const entry of unnamed) {
    const bytes = new Uint8Array(BEGINNING_BYTES);
    await content.read(entry, 0, bytes);
    if (BEGINNINGS.test(Buffer.from(bytes).toString('latin1'))) return entry;
  }
  return undefined;
}
