/** Where the disk cache lies and how large it is: the options every command that opens a store has. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { CacheChoice } from '../cache/cache-directory.ts';
import { CACHE_DISK_BYTES_DEFAULT } from '../core/limits.ts';
import { defaultSize } from './arguments.ts';

/** The value of `--cache-dir` that means: without. */
const NONE = 'none';

/** The environment's value of `--cache-dir`. */
const VARIABLE = 'KLOSET_NBD_CACHE_DIR';

export interface CacheArguments {
  readonly cacheDir: string | undefined;
  /** False with `--no-cache`. */
  readonly cache: boolean;
  readonly cacheDisk: string;
}

/** Options of all commands, as yargs takes them. */
export const cacheOptions = {
  'cache-dir': {
    describe: `Directory for cached indexes, snapshot metadata and decoded chunks; "${NONE}" does without`,
    type: 'string',
    requiresArg: true,
    defaultDescription: `${VARIABLE}, or $XDG_CACHE_HOME/kloset-nbd, or ~/.cache/kloset-nbd`,
  },
  'cache-disk': {
    describe: 'Decoded chunks kept in that directory, of all stores together; 0: none',
    type: 'string',
    requiresArg: true,
    default: defaultSize(CACHE_DISK_BYTES_DEFAULT),
  },
  cache: { describe: 'Use the disk cache; --no-cache does without', type: 'boolean', default: true },
} as const;

/** The directory to use, or undefined for none. */
export function chooseCache(
  { cacheDir, cache }: CacheArguments,
  environment: NodeJS.ProcessEnv,
): CacheChoice | undefined {
  const named = cacheDir ?? (environment[VARIABLE] || undefined);
  if (!cache || named === NONE) return undefined;
  if (named !== undefined) return { path: resolve(named), isDefault: false };
  // A relative XDG_CACHE_HOME is invalid and to be ignored (XDG Base Directory Specification).
  const base = environment.XDG_CACHE_HOME?.startsWith('/') ? environment.XDG_CACHE_HOME : join(homedir(), '.cache');
  return { path: join(base, 'kloset-nbd'), isDefault: true };
}
