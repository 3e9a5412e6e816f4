import { Worker } from 'node:worker_threads';
import type { ChunkWriter } from '../cache/chunk-disk.ts';
import type { ChunkWritten, SegmentTarget } from '../cache/chunk-files.ts';
import type { ChunkFile, ChunkFileSettings } from '../cache/chunk-names.ts';
import { programFile } from '../core/program-file.ts';
import { YOUNG_GENERATION_MB } from './pool.ts';

/** To write, or to read. Shared memory is not copied. */
type FileWork = { readonly file: ChunkFile } & (
  | { readonly plain: Uint8Array }
  | { readonly stored: Uint8Array }
  | { readonly plainBytes: number; readonly segments: readonly SegmentTarget[] }
);

/** What the thread is asked, and what it answers. */
export type FileTask = { readonly id: number } & FileWork;

export type FileReply = { readonly id: number } & (
  | { readonly result: ChunkWritten | boolean }
  | { readonly failure: { readonly message: string; readonly code: string | undefined } }
);

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

/** Does ChunkFiles' work in a thread of its own, which is started for the first task, and again if it died. */
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
    return this.#ask({ file, plain });
  }

  writeStored(file: ChunkFile, stored: Uint8Array): Promise<ChunkWritten> {
    return this.#ask({ file, stored });
  }

  read(file: ChunkFile, plainBytes: number, segments: readonly SegmentTarget[]): Promise<boolean> {
    return this.#ask({ file, plainBytes, segments });
  }

  #ask<T>(work: FileWork): Promise<T> {
    if (this.#isClosed) return Promise.reject(new Error('the cache is closed'));
    this.#thread ??= this.#start();
    const task: FileTask = { id: this.#nextId++, ...work };
    return new Promise<T>((resolve, reject) => {
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
    thread.on('message', (reply: FileReply) => this.#settle(reply));
    thread.on('error', (error) => this.#fail(thread, error));
    thread.on('exit', () => this.#fail(thread, new Error('the thread that writes has ended')));
    // A server that has ended does not wait for its cache. Last: who listens to messages waits for them.
    thread.unref();
    return thread;
  }

  #settle(reply: FileReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if ('result' in reply) waiting?.resolve(reply.result as never);
    else waiting?.reject(Object.assign(new Error(reply.failure.message), { code: reply.failure.code }));
  }

  #fail(thread: Worker, error: Error): void {
    if (this.#thread !== thread) return;
    this.#thread = undefined;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
