/**
 * Part of `npm run check`: reads the import lines of `src/` and names every arrow between folders that the architecture
 * does not have, and every package that would be missing where kloset-nbd is installed.
 *
 * Lines are matched by pattern, not parsed: the formatter keeps them regular, and an import inside a comment is worth a
 * complaint too.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * What each folder of `src/` may import besides itself: folders, or parts of them. The pipeline's folders meet only
 * through the contracts in `core`; `exports` strings them to devices, and `cli` picks the concrete classes.
 */
const allowed: Readonly<Record<string, readonly string[]>> = {
  core: [],
  cache: ['core'],
  nbd: ['core'],
  device: ['core'],
  ext4: ['core'],
  kloset: ['core', 'cache'],
  observability: ['core'],
  source: ['core', 'cache', 'kloset'],
  hydration: ['core', 'cache', 'device', 'kloset', 'source', 'verify'],
  workers: ['core', 'cache', 'kloset/codec', 'ext4'],
  exports: ['core', 'cache', 'device', 'ext4', 'kloset', 'source', 'workers'],
  supervise: ['core', 'nbd'],
  attach: ['core', 'device'],
  postgres: ['core', 'attach', 'exports', 'kloset', 'nbd', 'source'],
  warmup: ['core', 'cache', 'exports', 'kloset', 'postgres', 'source'],
  verify: ['core', 'kloset', 'source', 'workers'],
  control: ['core', 'nbd'],
  images: ['core'],
  clones: ['core', 'control', 'device', 'ext4', 'exports', 'kloset', 'source'],
  cli: [
    'core',
    'attach',
    'cache',
    'clones',
    'control',
    'images',
    'nbd',
    'device',
    'ext4',
    'exports',
    'hydration',
    'kloset',
    'observability',
    'postgres',
    'source',
    'supervise',
    'verify',
    'warmup',
    'workers',
  ],
  tools: [],
};

/** Static and dynamic imports, re-exports, and the script a worker thread starts from; not other files behind a URL. */
const importPattern = /\b(?:(?:from|import|import\()\s*|new URL\((?=['"]\.\S+\.[jt]s['"]))(['"])([^'"\n]+)\1/g;

/** A file of `src/`: its path below `src/`, `/`-separated, and its text. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** One line for each import that must not be; empty if all is well. */
export function findForbiddenImports(files: readonly SourceFile[], dependencies: readonly string[]): string[] {
  return files.flatMap(({ path, text }) =>
    [...text.matchAll(importPattern)].flatMap((match) => {
      const line = text.slice(0, match.index).split('\n').length;
      const complaint = judge(path, match[2]!, dependencies);
      return complaint === undefined ? [] : [`src/${path}:${line}: ${complaint}`];
    }),
  );
}

function judge(path: string, specifier: string, dependencies: readonly string[]): string | undefined {
  const folder = path.split('/')[0]!;
  const allowedHere = allowed[folder];
  if (allowedHere === undefined) return `src/${folder} has no rule: say in check-imports.ts what it may import`;
  if (!specifier.startsWith('.')) {
    const packageName = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
    if (isBuiltin(specifier) || dependencies.includes(packageName)) return undefined;
    return `'${packageName}' is not among the dependencies of package.json`;
  }
  const target = posix.join(posix.dirname(path), specifier);
  if ([folder, ...allowedHere].some((part) => target.startsWith(`${part}/`))) return undefined;
  const rule = allowedHere.length === 0 ? 'nothing but itself' : `itself and ${allowedHere.join(', ')} only`;
  return `${folder} must not import ${target}: it may import ${rule}`;
}

function main(): void {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const paths = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
  const files = paths
    .filter((path) => path.endsWith('.ts'))
    .map((path) => ({ path: path.replaceAll('\\', '/'), text: readFileSync(join(root, 'src', path), 'utf8') }));
  const { dependencies }: { dependencies: object } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const complaints = findForbiddenImports(files, Object.keys(dependencies));
  for (const complaint of complaints) console.error(complaint);
  if (complaints.length > 0) process.exitCode = 1;
  else console.log(`The imports of ${files.length} files are as the architecture says.`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
