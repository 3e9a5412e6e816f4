/**
 * A process that waits for the end of the one which started it, and then takes down what that left of its session: where
 * there are no namespaces, the kernel does not. It hangs on a pipe, which ends however its other end's process does.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { programFile } from '../core/program-file.ts';

export interface Watcher {
  /** There is nothing left to take down. Resolves when the watcher has ended. */
  dismiss(): Promise<void>;
}

/** `directory` is the session's. */
export function startWatcher(directory: string): Watcher {
  const child = spawn(process.execPath, [programFile('attach/watcher-process.js'), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // Ctrl-C, and whatever else ends a whole group, is not for it.
    detached: true,
  });
  const ended = Promise.race([once(child, 'close'), once(child, 'error')]);
  child.unref();
  return {
    async dismiss() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.ref();
      child.kill('SIGKILL');
      await ended;
    },
  };
}
