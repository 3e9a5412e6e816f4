/** Entry of the thread that writes and recalls cached chunks: sealing and a slow disk keep only this one busy. */
import { readlinkSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { basename } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { ChunkFiles } from '../cache/chunk-files.ts';
import type { ChunkFileSettings } from '../cache/chunk-names.ts';
import type { FileReply, FileTask } from './cache-writer.ts';

let isBehind = false;
const files = new ChunkFiles(workerData as ChunkFileSettings);

parentPort!.on('message', (task: FileTask) => parentPort!.postMessage(answer(task)));

function answer(task: FileTask): FileReply {
  const { id, file } = task;
  try {
    if ('segments' in task) return { id, result: files.read(file, task.plainBytes, task.segments) };
    stepBack();
    return { id, result: 'plain' in task ? files.write(file, task.plain) : files.writeStored(file, task.stored) };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { id, failure: { message, code } };
  }
}

/**
 * Clients wait for the other threads, and nobody for what is written. Not before that: a server that only recalls is to be
 * warm soon, and without privileges there is no way back. Linux gives each thread a priority of its own.
 */
function stepBack(): void {
  if (isBehind) return;
  isBehind = true;
  try {
    setPriority(Number(basename(readlinkSync('/proc/thread-self'))), constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // Then it is one like the others.
  }
}
