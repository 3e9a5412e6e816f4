import { expect, test } from 'vitest';
import { containedConfiguration, hasLocale } from '../../../src/postgres/contained-configuration.ts';
import type { ControlData } from '../../../src/postgres/control-data.ts';

const control: ControlData = {
  state: 'shut down',
  redoSegment: '000000010000000000000001',
  pageBytes: 8192,
  walPageBytes: 8192,
  filePages: 131_072,
  walSegmentBytes: 2 ** 24,
  checksums: true,
  recoverySettings: new Map([
    ['max_connections', '500'],
    ['wal_level', 'logical'],
  ]),
};
const place = {
  socketDirectory: '/s',
  port: 5432,
  hbaFile: '/s-conf/pg_hba.conf',
  identFile: '/s-conf/pg_ident.conf',
  clusterName: 'kloset-nbd 00000000',
  isThrowAway: true,
};

function contain(
  backup: Record<string, string>,
  options: { major?: number; keepSettings?: boolean; keep?: boolean } = {},
) {
  return containedConfiguration({
    backup: new Map(Object.entries(backup)),
    control,
    major: options.major ?? 15,
    place: { ...place, isThrowAway: options.keep !== true },
    locales: new Set(['C', 'en_US.utf8']),
    keepSettings: options.keepSettings ?? false,
  });
}

test('nothing that could act comes through, and each is listed', () => {
  const hostile = {
    archive_command: 'rm -rf /',
    archive_library: 'evil',
    restore_command: 'evil',
    shared_preload_libraries: 'evil',
    jit_provider: 'evil',
    dynamic_library_path: '/evil',
    log_directory: '/live/log',
    external_pid_file: '/live/pid',
    primary_conninfo: 'host=live',
    listen_addresses: '*',
    hba_file: '/live/pg_hba.conf',
    something_new: 'evil',
  };
  const { settings, differences } = contain(hostile);
  for (const [name, value] of Object.entries(hostile)) expect(settings.get(name), name).not.toBe(value);
  expect(differences.map(({ name }) => name)).toEqual(Object.keys(hostile).sort());
  expect(settings.get('listen_addresses')).toBe('');
  expect(settings.get('shared_preload_libraries')).toBe('');
});

test('what answers look like and what recovery needs stays', () => {
  const { settings, differences } = contain({
    timezone: 'Europe/Zurich',
    datestyle: 'iso, dmy',
    lc_time: 'en_US.UTF-8',
  });
  expect(differences).toEqual([]);
  expect(settings.get('max_connections')).toBe('500');
  expect(settings.get('wal_level')).toBe('logical');
});

test('memory is capped, and locales that are not here become C', () => {
  const { settings } = contain({
    shared_buffers: '64GB',
    work_mem: '4096',
    maintenance_work_mem: '2GB',
    lc_messages: 'de_DE.UTF-8',
  });
  expect(settings.get('shared_buffers')).toBe('128MB');
  expect(settings.get('work_mem')).toBe('4096');
  expect(settings.get('maintenance_work_mem')).toBe('256MB');
  expect(settings.get('lc_messages')).toBe('C');
});

test('settings that a version does not know are not given to it', () => {
  expect(contain({}, { major: 13 }).settings.has('recovery_init_sync_method')).toBe(false);
  expect(contain({}, { major: 15 }).settings.get('recovery_init_sync_method')).toBe('syncfs');
  expect(contain({}, { major: 16 }).settings.has('event_triggers')).toBe(false);
  expect(contain({}, { major: 17 }).settings.get('event_triggers')).toBe('off');
});

test('only a clone that is thrown away goes without fsync', () => {
  expect(contain({}).settings.get('fsync')).toBe('off');
  expect(contain({}, { keep: true }).settings.has('fsync')).toBe(false);
});

test('--keep-settings keeps all but where the server is', () => {
  const backup = { archive_command: 'cp', shared_preload_libraries: 'x', port: '1', data_directory: '/live' };
  const { settings } = contain(backup, { keepSettings: true });
  expect(settings.get('archive_command')).toBe('cp');
  expect(settings.get('shared_preload_libraries')).toBe('x');
  expect(settings.get('port')).toBe('5432');
  expect(settings.has('data_directory')).toBe(false);
});

test('a locale is known however its codeset is spelt', () => {
  const installed = new Set(['en_US.utf8', 'de_DE']);
  expect(hasLocale('en_US.UTF-8', installed)).toBe(true);
  expect(hasLocale('de_DE', installed)).toBe(true);
  expect(hasLocale('en_US.ISO8859-1', installed)).toBe(false);
  expect(hasLocale('POSIX', new Set())).toBe(true);
});
