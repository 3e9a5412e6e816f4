import { expect, test } from 'vitest';
import type { ControlData } from '../../../src/postgres/control-data.ts';
import type { PostgresServer } from '../../../src/postgres/postgres-server.ts';
import { missingLibraries, requireSameBuild } from '../../../src/postgres/server-build.ts';

const control = { pageBytes: 8192, walPageBytes: 8192, filePages: 131_072, walSegmentBytes: 2 ** 20 } as ControlData;

function server(built: readonly number[], libraries?: readonly string[]): PostgresServer {
  const told: Partial<PostgresServer> = {
    version: 'postgres 15',
    presets: async () => ({ status: 0, stdout: `${built.join('\n')}\n`, stderr: '' }),
    libraries: async () => libraries && new Set(libraries),
  };
  return told as PostgresServer;
}

test('a server that was built for other pages or files is refused with the next step', async () => {
  await requireSameBuild(control, server([8192, 8192, 131_072]), '/');
  await expect(requireSameBuild(control, server([16_384, 8192, 131_072]), '/')).rejects.toThrow(
    /cluster has pages of 8192 bytes; postgres 15 was built for pages of 16384 bytes\. .*--pg-bin/,
  );
  await expect(requireSameBuild(control, server([8192, 4096, 131_072]), '/')).rejects.toThrow('WAL pages of 8192');
  await expect(requireSameBuild(control, server([8192, 8192, 64]), '/')).rejects.toMatchObject({ exitCode: 78 });
});

test('libraries that the backup loads and that are not here are named, each with its setting', async () => {
  const settings = new Map([
    ['shared_preload_libraries', 'here, "$libdir/plugins/gone.so" , "with ""quotes"""'],
    ['archive_library', 'archiver'],
    ['jit_provider', 'here'],
  ]);
  const warnings = await missingLibraries(settings, server([], ['here']));
  expect(warnings.map((line) => line.slice(0, line.indexOf(', which')))).toEqual([
    "The backup's shared_preload_libraries has $libdir/plugins/gone.so",
    'The backup\'s shared_preload_libraries has with "quotes"',
    "The backup's archive_library has archiver",
  ]);
  expect(await missingLibraries(settings, server([]))).toEqual([]);
  expect(await missingLibraries(new Map(), server([], []))).toEqual([]);
});
