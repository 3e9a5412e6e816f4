/** The real plakar, with caches of its own for each use: everybody begins cold. */
import { readFileSync } from 'node:fs';
import type { Cleanup } from '../../test/support/fixtures.ts';
import { privatePlakarEnvironment } from '../../test/support/plakar-server-real.ts';
import { commandPath } from '../../test/support/requires.ts';
import type { BenchStore } from './bench.ts';
import { type Measured, measure } from './usage.ts';

export function plakarEnvironment(cleanup: Cleanup, { passphrase }: Pick<BenchStore, 'passphrase'>): NodeJS.ProcessEnv {
  const environment = privatePlakarEnvironment(cleanup);
  return passphrase === undefined ? environment : { ...environment, PLAKAR_PASSPHRASE: passphrase };
}

/** The newest snapshot into a folder, as it is. */
export function restore(store: BenchStore, env: NodeJS.ProcessEnv, folder: string, limitMs: number): Promise<Measured> {
  return measure(commandPath('plakar'), ['-quiet', 'at', store.location, 'restore', '-to', folder], { env, limitMs });
}

/** The first 8 digits of the newest snapshot's id. */
export async function newestSnapshot(store: BenchStore, env: NodeJS.ProcessEnv): Promise<string> {
  const { stdout } = await measure(commandPath('plakar'), ['at', store.location, 'ls'], { env, keepsOutput: true });
  const lines = [...stdout.matchAll(/^(\d{4}-\S+)\s+([0-9a-f]{8})\s/gm)];
  const newest = lines.sort(([, a], [, b]) => a!.localeCompare(b!)).at(-1);
  if (newest === undefined) throw new Error(`plakar lists no snapshot of ${store.location}`);
  return newest[2]!;
}

/** Every path of `paths` (in the snapshot, beginning with `/`) to nowhere. */
export function cat(
  store: BenchStore,
  { env, snapshot, paths }: { env: NodeJS.ProcessEnv; snapshot: string; paths: readonly string[] },
): Promise<Measured> {
  const operands = paths.map((path) => `${snapshot}:${path}`);
  return measure(commandPath('plakar'), ['at', store.location, 'cat', ...operands], { env });
}

/** Whether something is mounted there. */
export function isMountPoint(folder: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${folder} `);
}
