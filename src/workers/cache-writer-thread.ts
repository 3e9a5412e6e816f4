/** Entry of the thread that writes cached chunks: sealing and a slow disk keep only this one busy. */
import { parentPort, workerData } from 'node:worker_threads';
import { ChunkFiles } from '../cache/chunk-files.ts';
import type { ChunkFileSettings } from '../cache/chunk-names.ts';
import type { WriteReply, WriteTask } from './cache-writer.ts';

const files = new ChunkFiles(workerData as ChunkFileSettings);

parentPort!.on('message', ({ id, file, plain }: WriteTask) => {
  parentPort!.postMessage(answer(id, () => files.write(file, plain)));
});

function answer(id: number, write: () => ReturnType<ChunkFiles['write']>): WriteReply {
  try {
    return { id, written: write() };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { id, failure: { message, code } };
  }
}
