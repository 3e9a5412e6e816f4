/** Entry of the thread that writes and recalls cached chunks: sealing and a slow disk keep only this one busy. */
import { readlinkSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { basename } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { ChunkFiles } from '../cache/chunk-files.ts';
import type { ChunkFileSettings } from '../cache/chunk-names.ts';
import type { FileReply, FileTask } from './cache-writer.ts';

stepBack();
const files = new ChunkFiles(workerData as ChunkFileSettings);

parentPort!.on('message', (task: FileTask) => parentPort!.postMessage(answer(task)));

function answer(task: FileTask): FileReply {
  const { id, file } = task;
  try {
    if ('plain' in task) return { id, result: files.write(file, task.plain) };
    if ('stored' in task) return { id, result: files.writeStored(file, task.stored) };
    return { id, result: files.read(file, task.plainBytes, task.segments) };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { id, failure: { message, code } };
  }
}

/** Clients wait for the other threads, and nobody for this one. Linux gives each thread a priority of its own. */
function stepBack(): void {
  try {
    setPriority(Number(basename(readlinkSync('/proc/thread-self'))), constants.priority.PRIORITY_LOW);
  } catch {
    // Then it is one like the others.
  }
}
