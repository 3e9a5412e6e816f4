/**
 * Part of `npm run build`: bundles each program among the compiled files (the command line, threads, helper processes)
 * with what it imports. Finding and linking hundreds of modules took longer than all else that a start does, and most so
 * where none of them is in the page cache.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const programs = [
  'cli/main.js',
  'attach/watcher-process.js',
  'kloset/plakar-server/relay.js',
  'workers/cache-writer-thread.js',
  'workers/codec-worker.js',
  'workers/key-worker.js',
];

/** Packages that every start needs; piscina alone stays outside, since it starts threads from a file of its own. */
const bundledPackages = new Set(['lru-cache', 'pino', 'yargs']);

/** @type {import('esbuild').Plugin} */
const packagesOutside = {
  name: 'packages that few runs need stay outside',
  setup({ onResolve }) {
    onResolve({ filter: /^[a-z@]/ }, ({ path, importer }) => {
      const isOurs = !importer.includes('/node_modules/');
      return isOurs && !bundledPackages.has(path) ? { path, external: true } : undefined;
    });
  },
};

/**
 * yargs lays out the help of every command it runs, asked for or not. Measuring each text by the rules of Unicode took a
 * start 60 ms; ours are ASCII.
 *
 * @type {import('esbuild').Plugin}
 */
const plainWidths = {
  name: 'the width of a text is its length',
  setup({ onResolve, onLoad }) {
    const namespace = 'plain-width';
    onResolve({ filter: /^string-width$/ }, ({ path }) => ({ path, namespace }));
    onLoad({ filter: /^/, namespace }, () => ({ contents: 'export default (text) => text.length;' }));
  },
};

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Writes the programs over what was compiled, and what they share to `dist/chunks/`. */
async function bundle() {
  const dist = join(root, 'dist');
  rmSync(join(dist, 'chunks'), { recursive: true, force: true });
  await build({
    absWorkingDir: root,
    entryPoints: programs.map((program) => join(dist, program)),
    outbase: dist,
    outdir: dist,
    allowOverwrite: true,
    bundle: true,
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    format: 'esm',
    platform: 'node',
    logLevel: 'warning',
    // Packages written for CommonJS ask for Node's own modules by this name.
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
    },
    plugins: [packagesOutside, plainWidths],
  });
}

await bundle();
