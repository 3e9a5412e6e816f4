/**
 * The configuration that a cluster of a backup runs with: made anew from an allow-list, so that nothing of the backup's
 * own settings acts that could reach beyond it. What is not on the list has PostgreSQL's default.
 */
import { parseBytes } from '../core/units.ts';
import type { ControlData } from './control-data.ts';

export interface Difference {
  readonly name: string;
  /** What the backup has. */
  readonly backup: string;
  /** What is used instead; undefined: PostgreSQL's default. */
  readonly used: string | undefined;
}

export interface ContainedConfiguration {
  readonly settings: ReadonlyMap<string, string>;
  /** Where it differs from the backup's own, in the order of names. */
  readonly differences: readonly Difference[];
}

export interface InstancePlace {
  readonly socketDirectory: string;
  readonly port: number;
  readonly hbaFile: string;
  readonly identFile: string;
  readonly clusterName: string;
  /** What is written is lost at the end anyway: no need to wait for the disk. */
  readonly isThrowAway: boolean;
}

/** Settings taken over as they are: what answers look like, and what a planner makes of a query. */
const TAKEN = [
  'array_nulls',
  'backslash_quote',
  'bytea_output',
  'client_encoding',
  'constraint_exclusion',
  'cpu_index_tuple_cost',
  'cpu_operator_cost',
  'cpu_tuple_cost',
  'cursor_tuple_fraction',
  'datestyle',
  'default_statistics_target',
  'default_text_search_config',
  'default_toast_compression',
  'default_transaction_isolation',
  'effective_cache_size',
  'escape_string_warning',
  'extra_float_digits',
  'from_collapse_limit',
  'geqo',
  'intervalstyle',
  'join_collapse_limit',
  'lo_compat_privileges',
  'max_pred_locks_per_transaction',
  'plan_cache_mode',
  'quote_all_identifiers',
  'random_page_cost',
  'row_security',
  'search_path',
  'seq_page_cost',
  'standard_conforming_strings',
  'timezone',
  'transform_null_equals',
  'xmlbinary',
  'xmloption',
];

/** Taken over where this machine has that locale. */
const LOCALES = ['lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time'];

/** Memory of the backup's server, which may have had a machine of its own: at most so much, bytes. */
const MEMORY_BYTES_MAX: Readonly<Record<string, number>> = {
  shared_buffers: 128 * 2 ** 20,
  work_mem: 64 * 2 ** 20,
  maintenance_work_mem: 256 * 2 ** 20,
  temp_buffers: 64 * 2 ** 20,
};

/** What a number without a unit counts, bytes. Source: guc_tables.c. */
const MEMORY_UNIT_BYTES: Readonly<Record<string, number>> = {
  shared_buffers: 8192,
  work_mem: 1024,
  maintenance_work_mem: 1024,
  temp_buffers: 8192,
};

/** `backup` are the settings of the backup's own files. `locales` are those this machine has, as `locale -a` spells them. */
export function containedConfiguration(options: {
  readonly backup: ReadonlyMap<string, string>;
  readonly control: ControlData;
  readonly major: number;
  readonly place: InstancePlace;
  readonly locales: ReadonlySet<string>;
  /** Take over all of the backup's settings but those that name its places. */
  readonly keepSettings: boolean;
  /** Bytes for shared_buffers at most, in a small memory group. */
  readonly sharedBytesMax?: number | undefined;
}): ContainedConfiguration {
  const { backup, control, major, place, locales, keepSettings, sharedBytesMax } = options;
  if (keepSettings) return keptConfiguration(backup, place);
  const settings = new Map<string, string>();
  for (const name of TAKEN) copy(name, backup, settings);
  for (const name of LOCALES) {
    const value = backup.get(name);
    if (value !== undefined) settings.set(name, hasLocale(value, locales) ? value : 'C');
  }
  for (const [name, bytesMax] of Object.entries(MEMORY_BYTES_MAX)) {
    const value = backup.get(name);
    if (value !== undefined && memoryBytes(name, value) <= bytesMax) settings.set(name, value);
    else if (value !== undefined) settings.set(name, `${bytesMax / 2 ** 20}MB`);
  }
  if (sharedBytesMax !== undefined) capShared(settings, sharedBytesMax);
  for (const [name, value] of control.recoverySettings) settings.set(name, value);
  for (const [name, value] of Object.entries(own(major, place))) settings.set(name, value);
  return { settings, differences: compare(backup, settings) };
}

function capShared(settings: Map<string, string>, bytesMax: number): void {
  const name = 'shared_buffers';
  const bytes = memoryBytes(name, settings.get(name) ?? `${MEMORY_BYTES_MAX[name]! / 2 ** 20}MB`);
  if (bytes > bytesMax) settings.set(name, `${Math.ceil(bytesMax / 2 ** 20)}MB`);
}

/** `--keep-settings`: the backup's own, but for where it listens and what its files are called. */
function keptConfiguration(backup: ReadonlyMap<string, string>, place: InstancePlace): ContainedConfiguration {
  const settings = new Map(backup);
  for (const name of ['data_directory', 'external_pid_file']) settings.delete(name);
  for (const [name, value] of Object.entries(whereItIs(place))) settings.set(name, value);
  return { settings, differences: compare(backup, settings) };
}

/** Where clients find it, and its own files. */
function whereItIs(place: InstancePlace): Record<string, string> {
  return {
    listen_addresses: '',
    port: String(place.port),
    unix_socket_directories: place.socketDirectory,
    unix_socket_permissions: '0700',
    hba_file: place.hbaFile,
    ident_file: place.identFile,
    cluster_name: place.clusterName,
    logging_collector: 'off',
    log_destination: 'stderr',
  };
}

/** What always holds, whatever the backup has. */
function own(major: number, place: InstancePlace): Record<string, string> {
  return {
    ...whereItIs(place),
    ssl: 'off',
    archive_mode: 'off',
    autovacuum: 'off',
    shared_preload_libraries: '',
    session_preload_libraries: '',
    local_preload_libraries: '',
    max_replication_slots: '0',
    max_logical_replication_workers: '0',
    max_sync_workers_per_subscription: '0',
    synchronous_standby_names: '',
    log_line_prefix: '%m [%p] ',
    huge_pages: 'off',
    ...(major >= 14 ? { recovery_init_sync_method: 'syncfs' } : {}),
    ...(major >= 17 ? { event_triggers: 'off' } : {}),
    ...(place.isThrowAway ? { fsync: 'off', synchronous_commit: 'off' } : {}),
  };
}

function copy(name: string, from: ReadonlyMap<string, string>, to: Map<string, string>): void {
  const value = from.get(name);
  if (value !== undefined) to.set(name, value);
}

/** Locales' codesets are spelt in many ways: `en_US.UTF-8` is `en_US.utf8`. */
export function hasLocale(locale: string, locales: ReadonlySet<string>): boolean {
  if (['', 'C', 'POSIX'].includes(locale)) return true;
  const key = localeKey(locale);
  for (const installed of locales) if (localeKey(installed) === key) return true;
  return false;
}

function localeKey(locale: string): string {
  const [name, codeset = ''] = locale.split('.');
  return `${name}.${codeset.toLowerCase().replace(/[^a-z0-9]/g, '')}`;
}

function memoryBytes(name: string, value: string): number {
  if (/^\d+$/.test(value)) return Number(value) * MEMORY_UNIT_BYTES[name]!;
  // PostgreSQL's kB and MB are powers of 1024.
  return parseBytes(value.replace(/\s/g, '').replace(/B$/i, '').toUpperCase()) ?? Number.POSITIVE_INFINITY;
}

function compare(backup: ReadonlyMap<string, string>, used: ReadonlyMap<string, string>): Difference[] {
  return [...backup]
    .filter(([name, value]) => used.get(name) !== value)
    .map(([name, value]) => ({ name, backup: value, used: used.get(name) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}
