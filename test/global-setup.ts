/**
 * Makes sure that `dist/` is what `src/` says: worker threads and the command line run from it, also where a test
 * imports the sources, since Node 20 runs no TypeScript. `npm test` has built already and pays only the comparison.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

export default function setup(): void {
  if (!isStale()) return;
  console.log('dist/ is older than src/: building');
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const build = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.json'], { cwd: root, encoding: 'utf8' });
  // Types in error still give JavaScript: a run of a few tests while others are half written is worth its while.
  // `npm test` and `npm run check` do not get this far with them.
  if (build.status !== 0) console.error(`the build reports errors:\n${build.stdout}${build.stderr}`);
}

function isStale(): boolean {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
  return sources
    .filter((path) => path.endsWith('.ts'))
    .some((path) => {
      const built = statSync(join(root, 'dist', path.replace(/\.ts$/, '.js')), { throwIfNoEntry: false });
      return built === undefined || built.mtimeMs < statSync(join(root, 'src', path)).mtimeMs;
    });
}
