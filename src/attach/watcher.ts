/**
 * A process that waits for the end of the one which started it, and then takes down what that left of its session: where
 * there are no namespaces, the kernel does not. It hangs on a pipe, which ends however its other end's process does.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readSession } from './sessions.ts';
import { takeDown } from './take-down.ts';

const POLL_MS = 10;

export interface Watcher {
  /** There is nothing left to take down. Resolves when the watcher has ended. */
  dismiss(): Promise<void>;
}

/** `directory` is the session's. */
export function startWatcher(directory: string): Watcher {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), directory], {
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

async function watch(directory: string): Promise<void> {
  for await (const _ of process.stdin);
  let session = await readSession(directory);
  // Its pipe ends a moment before it does.
  while (session?.isAlive) {
    await sleep(POLL_MS);
    session = await readSession(directory);
  }
  if (session === undefined) return;
  const groups = session.record.memoryGroups;
  // Its own group cannot be removed while it is in it.
  if (groups !== undefined) await writeFile(join(dirname(groups), 'cgroup.procs'), String(process.pid));
  await takeDown(directory, session.record);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await watch(process.argv[2]!);
