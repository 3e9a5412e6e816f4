import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { storePath } from './fixtures.ts';

/** CONFIG of stores with every algorithm there is. */
export function fixtureConfigs(): Buffer[] {
  const names = [
    'plain',
    'sha256-nocompress',
    'gzip',
    'zstd',
    'encrypted',
    'encrypted-scrypt',
    'encrypted-pbkdf2-sha256',
  ];
  return names.map((name) => readFileSync(join(storePath(name), 'CONFIG')));
}
