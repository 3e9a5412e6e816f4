import { finish } from './program.ts';

/** Examples enough to make somebody look. */
const EXAMPLES_MAX = 3;
/** A look at a big tree costs many reads: it ends after so long, seconds. */
const LOOK_SECONDS_MAX = 10;

/** The first symlinks below a mount point whose own target is absolute, or climbs above it, as `link -> target`. */
export async function findLeavingSymlinks(mountPoint: string): Promise<string[]> {
  const candidates = ['(', '-lname', '/*', '-o', '-lname', '..*', '-o', '-lname', '*/../*', ')'];
  const { stdout } = await finish([
    'timeout',
    String(LOOK_SECONDS_MAX),
    'find',
    mountPoint,
    '-xdev',
    '-type',
    'l',
    ...candidates,
    '-printf',
    '%P\\0%l\\0',
  ]);
  const words = stdout.split('\0');
  const found: string[] = [];
  for (let i = 0; i + 1 < words.length && found.length < EXAMPLES_MAX; i += 2) {
    if (leaves(words[i]!, words[i + 1]!)) found.push(`${words[i]} -> ${words[i + 1]}`);
  }
  return found;
}

/** By its text alone: `path` lies below the mount point. */
export function leaves(path: string, target: string): boolean {
  if (target.startsWith('/')) return true;
  let depth = path.split('/').length - 1;
  for (const name of target.split('/')) {
    if (name === '..') depth--;
    else if (name !== '' && name !== '.') depth++;
    if (depth < 0) return true;
  }
  return false;
}
