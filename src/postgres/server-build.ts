/** What the installed server was built with, against what a backup needs. */
import { basename } from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';
import type { ControlData } from './control-data.ts';
import type { PostgresServer } from './postgres-server.ts';

/** What initdb cannot choose, by the names of `postgres -C`; WAL segments, which it can, may have any size. */
const BUILT_IN = {
  block_size: { what: 'pages of N bytes', of: (control: ControlData) => control.pageBytes, option: '--with-blocksize' },
  wal_block_size: {
    what: 'WAL pages of N bytes',
    of: (control: ControlData) => control.walPageBytes,
    option: '--with-wal-blocksize',
  },
  segment_size: {
    what: 'files of N pages',
    of: (control: ControlData) => control.filePages,
    option: '--with-segsize',
  },
} as const;

/** Settings that name libraries, separated by commas. */
const LIBRARY_LISTS = ['shared_preload_libraries', 'session_preload_libraries', 'local_preload_libraries'];
/** Settings that name one. */
const LIBRARIES = ['archive_library', 'jit_provider'];

/**
 * Rejects with UserError if the server reads pages of another size than the cluster has. `directory` is one with an empty
 * postgresql.conf.
 */
export async function requireSameBuild(control: ControlData, server: PostgresServer, directory: string): Promise<void> {
  const names = Object.keys(BUILT_IN) as (keyof typeof BUILT_IN)[];
  const { status, stdout } = await server.presets(names, directory);
  const values = stdout.trim().split('\n').map(Number);
  // One that does not tell says it itself when it starts.
  if (status !== 0 || values.length !== names.length) return;
  for (const [i, name] of names.entries()) {
    const { what, of, option } = BUILT_IN[name];
    if (of(control) === values[i]) continue;
    const words = (count: number) => what.replace('N', String(count));
    throw new UserError(
      `The backup's cluster has ${words(of(control))}; ${server.version} was built for ${words(values[i]!)}. ` +
        `Name a server that was built like the backup's (./configure ${option}) with --pg-bin DIR or --docker=IMAGE.`,
      { exitCode: exitCodes.version },
    );
  }
}

/** One line each about libraries that the backup's settings load and that are not installed here. */
export async function missingLibraries(
  settings: ReadonlyMap<string, string>,
  server: PostgresServer,
): Promise<string[]> {
  const named = [
    ...LIBRARY_LISTS.flatMap((setting) => listOf(settings.get(setting)).map((library) => ({ setting, library }))),
    ...LIBRARIES.flatMap((setting) => listOf(settings.get(setting)).map((library) => ({ setting, library }))),
  ];
  if (named.length === 0) return [];
  const installed = await server.libraries();
  if (installed === undefined) return [];
  return named
    .filter(({ library }) => !installed.has(basename(library).replace(/\.so$/, '')))
    .map(
      ({ setting, library }) =>
        `The backup's ${setting} has ${library}, which ${server.version} does not have here. It is not loaded anyway; ` +
        'extensions that need it fail: install its package, or start with --docker=IMAGE of an image that has it.',
    );
}

/** Elements of a list, some in double quotes. Source: varlena.c, SplitDirectoriesString. */
function listOf(value: string | undefined): string[] {
  const parts = (value ?? '').matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,"]+))\s*(?:,|$)/g);
  return [...parts].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain!.trim()).filter(Boolean);
}
