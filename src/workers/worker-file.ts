import { fileURLToPath } from 'node:url';

/**
 * Path of a worker thread's compiled entry. Tests run the sources, but a worker thread of Node 20 needs JavaScript: from
 * there it is the one that the last build made.
 */
export function workerFile(name: 'codec-worker' | 'key-worker' | 'cache-writer-thread'): string {
  const folder = import.meta.url.endsWith('.ts') ? '../../dist/workers/' : './';
  return fileURLToPath(new URL(`${folder}${name}.js`, import.meta.url));
}
