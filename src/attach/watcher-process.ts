/** The process that `watcher.ts` starts: its only argument is the session's directory. */
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readSession } from './sessions.ts';
import { takeDown } from './take-down.ts';

const POLL_MS = 10;

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

await watch(process.argv[2]!);
