/**
 * Makes sure that `dist/` is what `src/` says: worker threads and the command line run from it, also where a test
 * imports the sources, since Node 20 runs no TypeScript. `npm test` has built already and pays only the comparison.
 *
 * Servers that tests start register in a directory of the run's own, not among the machine's.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

export default function setup(): () => void {
  const sessions = mkdtempSync(join(tmpdir(), 'kloset-nbd-run-'));
  process.env.KLOSET_NBD_RUN_DIR = sessions;
  if (isStale()) build();
  return () => rmSync(sessions, { recursive: true, force: true });
}

function build(): void {
  console.log('dist/ is older than src/: building');
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const built = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.json'], { cwd: root, encoding: 'utf8' });
  spawnSync('npm', ['run', 'bundle'], { cwd: root, stdio: 'inherit' });
  // Types in error still give JavaScript: a run of a few tests while others are half written is worth its while.
  // `npm test` and `npm run check` do not get this far with them.
  if (built.status !== 0) console.error(`the build reports errors:\n${built.stdout}${built.stderr}`);
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
