/** Bounds of warming up and of profiles; each with its unit and reason. */
import { KiB, MiB } from '../core/units.ts';

/** Plain bytes that a warm-up fetches, chunks that are there left out: WAL, shared catalogs and those of some seven databases. */
export const WARM_UP_BYTES_MAX = 48 * MiB;

/** Plain bytes that a profile fetches: what it is for is a start and a first query, and half of the usual cache must stay free. */
export const PROFILE_BYTES_MAX = 128 * MiB;

/** Of one file, bytes: catalogs grow with the number of tables, and an index's or a heap's beginning is what is asked for first. */
export const FILE_BYTES_MAX = 2 * MiB;

/** Of the WAL, from where recovery starts, bytes: a segment of the usual size. What follows is read in order, so reading ahead has it. */
export const WAL_BYTES_MAX = 16 * MiB;

/** Files beside the relations that count as small, bytes: settings, and a page of transaction status. */
export const SMALL_FILE_BYTES_MAX = 64 * KiB;

/** Data directories of one snapshot that are warmed up: whoever serves more starts them one by one. */
export const DATA_DIRECTORIES_MAX = 4;

/** Files whose chunk tables are read ahead of the chunks: twice the store's usual number of requests at once. */
export const TABLES_AHEAD_MAX = 32;

/** Chunks a trace, and so a profile, has at most: at 200 bytes each less than 2 MiB, and some 8 GiB of files. */
export const TRACED_CHUNKS_MAX = 8192;

/** Directories of snapshots whose reads are remembered: more are not opened side by side, clones of one snapshot share one. */
export const TRACES_MAX = 16;

/** Longest backup_label and relation map that is parsed, bytes: they have some hundred. */
export const PARSED_FILE_BYTES_MAX = 16 * KiB;

/** How often the working set is written down, milliseconds: as often as pg_prewarm does, for a server that does not end by itself. */
export const WORKING_SET_SAVE_MS = 5 * 60 * 1000;
