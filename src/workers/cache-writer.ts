import { Worker } from 'node:worker_threads';
import type { ChunkWriter } from '../cache/chunk-disk.ts';
import type { ChunkWritten } from '../cache/chunk-files.ts';
import type { ChunkFile, ChunkFileSettings } from '../cache/chunk-names.ts';
import { programFile } from '../core/program-file.ts';
import { YOUNG_GENERATION_MB } from './pool.ts';

/** What the thread is asked, and what it answers. Shared memory is not copied. */
export interface WriteTask {
  readonly id: number;
  readonly file: ChunkFile;
  readonly plain: Uint8Array;
}

export type WriteReply = { readonly id: number } & (
  | { readonly written: ChunkWritten }
  | { readonly failure: { readonly message: string; readonly code: string | undefined } }
);

interface Waiting {
  readonly resolve: (written: ChunkWritten) => void;
  readonly reject: (error: Error) => void;
}

/** Writes cached chunks in a thread of its own, which is started for the first one, and again if it died. */
export class ThreadedChunkWriter implements ChunkWriter {
  readonly #settings: ChunkFileSettings;
  readonly #waiting = new Map<number, Waiting>();
  #thread: Worker | undefined;
  #nextId = 0;
  #isClosed = false;

  constructor(settings: ChunkFileSettings) {
    this.#settings = settings;
  }

  write(file: ChunkFile, plain: Uint8Array): Promise<ChunkWritten> {
    if (this.#isClosed) return Promise.reject(new Error('the cache is closed'));
    this.#thread ??= this.#start();
    const task: WriteTask = { id: this.#nextId++, file, plain };
    return new Promise((resolve, reject) => {
      this.#waiting.set(task.id, { resolve, reject });
      this.#thread!.postMessage(task);
    });
  }

  /** A thread that hangs in a write is left to the end of the process. */
  async close(): Promise<void> {
    this.#isClosed = true;
    // It was started for a chunk: once that is written it has imported what it needs, and Node.js 20 survives its end.
    if (this.#waiting.size === 0) await this.#thread?.terminate();
  }

  #start(): Worker {
    const thread = new Worker(programFile('workers/cache-writer-thread.js'), {
      workerData: this.#settings,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    });
    thread.on('message', (reply: WriteReply) => this.#settle(reply));
    thread.on('error', (error) => this.#fail(thread, error));
    thread.on('exit', () => this.#fail(thread, new Error('the thread that writes has ended')));
    // A server that has ended does not wait for its cache. Last: who listens to messages waits for them.
    thread.unref();
    return thread;
  }

  #settle(reply: WriteReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if ('written' in reply) waiting?.resolve(reply.written);
    else waiting?.reject(Object.assign(new Error(reply.failure.message), { code: reply.failure.code }));
  }

  #fail(thread: Worker, error: Error): void {
    if (this.#thread !== thread) return;
    this.#thread = undefined;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
