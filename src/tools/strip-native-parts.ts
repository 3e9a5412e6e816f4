/**
 * Part of `prepack`: takes the optional packages out of the runtime dependencies, which `npm pack` is about to bundle.
 * They are compiled add-ons (piscina's for thread priorities), and kloset-nbd promises to bring none.
 *
 * Two steps, both needed: npm bundles what it finds under `node_modules`, so the optional packages are deleted; and
 * whoever installs the tarball would have npm fetch them again for what the bundled package.json files still name, so
 * `optionalDependencies` is deleted there. The packages do without: that is what optional means.
 *
 * The checkout works on as before, only without those parts; `npm ci` or `npm install` brings them back. Running this
 * twice changes nothing the second time.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What this reads of package-lock.json: `packages` is keyed by path, the project itself by ''. */
interface Lockfile {
  readonly packages: Readonly<Record<string, LockedPackage>>;
}
interface LockedPackage {
  /** Only developers' tools need it. */
  readonly dev?: boolean;
  /** Developers' tools need it, or something optional does: gone with the one, or kept for the other. */
  readonly devOptional?: boolean;
  readonly optional?: boolean;
}

export interface RuntimePackages {
  /** Paths below the project: `node_modules/piscina`. */
  readonly kept: readonly string[];
  readonly optional: readonly string[];
}

/** Sorts what is installed for the program to run into what it needs and what is optional. */
export function sortRuntimePackages({ packages }: Lockfile): RuntimePackages {
  const runtime = Object.entries(packages).filter(
    ([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional,
  );
  const pathsWhere = (wanted: boolean) =>
    runtime.filter(([, { optional = false }]) => optional === wanted).map(([path]) => path);
  return { kept: pathsWhere(false), optional: pathsWhere(true) };
}

/** Does it to the project in `root`; returns the packages it changed. */
export function stripNativeParts(root: string): string[] {
  const lockfile: Lockfile = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const { kept, optional } = sortRuntimePackages(lockfile);
  for (const path of optional) rmSync(join(root, path), { recursive: true, force: true });
  const changed = kept.filter((path) => forgetOptionalDependencies(join(root, path, 'package.json')));
  const native = kept.flatMap((path) => findNativeFiles(join(root, path)));
  if (native.length > 0) throw new Error(`a runtime dependency is native, which is not allowed:\n${native.join('\n')}`);
  return changed;
}

function forgetOptionalDependencies(manifestPath: string): boolean {
  const manifest: Record<string, unknown> = JSON.parse(readFileSync(manifestPath, 'utf8'));
  if (manifest.optionalDependencies === undefined) return false;
  delete manifest.optionalDependencies;
  // Through a second file: other programs of the checkout may be reading this one.
  const next = `${manifestPath}.next`;
  writeFileSync(next, `${JSON.stringify(manifest, undefined, 2)}\n`);
  renameSync(next, manifestPath);
  return true;
}

/** Compiled code, and what would have npm compile some. */
function findNativeFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.node') || /(^|[\\/])binding\.gyp$/.test(path))
    .map((path) => join(folder, path));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const changed = stripNativeParts(fileURLToPath(new URL('../..', import.meta.url)));
  // On standard error: `npm pack` prints the tarball's name on standard output, and scripts read it.
  console.error(
    `Optional parts were taken out of: ${changed.length === 0 ? 'nothing, they were out' : changed.join(', ')}`,
  );
}
