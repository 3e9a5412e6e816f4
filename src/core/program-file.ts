import { fileURLToPath } from 'node:url';

/**
 * Path of a built program, named by its place below `dist/`: the entry of a thread, or of a process beside this one.
 *
 * Wherever this module is, as a source, compiled or bundled into `dist/chunks/`, it is two folders below the package.
 * Where the sources themselves are run, the program is the one that the last build made: Node 20 runs no TypeScript.
 */
export function programFile(name: string): string {
  return fileURLToPath(new URL(`../../dist/${name}`, import.meta.url));
}
