import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { Decoder, ExpectedChunk } from '../core/decoder.ts';
import { StoreUnavailableError } from '../core/errors.ts';
import { INFLIGHT_MEMORY_BYTES_DEFAULT, INLINE_DECODE_BYTES_MAX } from '../core/limits.ts';
import { type Outcome, resultOf } from '../core/outcome.ts';
import { programFile } from '../core/program-file.ts';
import { SharedArena } from '../core/shared-arena.ts';
import { type Codec, type CodecParameters, createCodec, requireMac } from '../kloset/codec/codec.ts';
import type { ChunkTask } from './message.ts';
import { queued, WantedFirstQueue } from './wanted-first-queue.ts';

/**
 * Of a thread's heap, MiB: as small as it is, the thread soon collects what refers to the shared memory of earlier tasks,
 * which lives until then.
 */
export const YOUNG_GENERATION_MB = 1;

/** Decodes small values in the calling thread and large ones in a pool of worker threads, through shared memory. */
export class PooledDecoder implements Decoder {
  readonly #codec: Codec;
  readonly #pool: Piscina<ChunkTask, Outcome<void>>;
  readonly #inlineBytesMax: number;
  readonly #arena: SharedArena;
  /** Settled once the thread has imported its code, or has ended. */
  readonly #loading = new Map<Worker, Promise<void>>();

  private constructor(parts: {
    codec: Codec;
    pool: Piscina<ChunkTask, Outcome<void>>;
    inlineBytesMax: number;
    arena: SharedArena;
  }) {
    const { pool } = parts;
    this.#codec = parts.codec;
    this.#pool = pool;
    this.#inlineBytesMax = parts.inlineBytesMax;
    this.#arena = parts.arena;
    this.#watchLoading();
    // The next thread is started as soon as this one is out of the list.
    pool.on('workerDestroy', () => queueMicrotask(() => this.#watchLoading()));
  }

  /**
   * `threads`: default one fewer than the machine has cores, since the main thread needs one. `arena`: what large values are
   * decoded to.
   */
  static async start(
    parameters: CodecParameters,
    {
      threads = Math.max(1, availableParallelism() - 1),
      inlineBytesMax = INLINE_DECODE_BYTES_MAX,
      arena = new SharedArena(INFLIGHT_MEMORY_BYTES_DEFAULT),
    }: { threads?: number; inlineBytesMax?: number; arena?: SharedArena } = {},
  ): Promise<PooledDecoder> {
    // First: if it fails here it fails in the threads, and no pool is left behind.
    const codec = await createCodec(parameters);
    const pool = new Piscina<ChunkTask, Outcome<void>>({
      filename: programFile('workers/codec-worker.js'),
      workerData: parameters,
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      taskQueue: new WantedFirstQueue(),
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    });
    // A thread that dies is replaced, and the task it had is rejected: nothing more is to be done here.
    pool.on('error', () => {});
    return new PooledDecoder({ codec, pool, inlineBytesMax, arena });
  }

  /** Values that wait for a thread. */
  get waiting(): number {
    return this.#pool.queueSize;
  }

  async decode(stored: Uint8Array, { mac, plainBytes, isGuess }: ExpectedChunk): Promise<Uint8Array> {
    if (plainBytes <= this.#inlineBytesMax) {
      const target = new Uint8Array(plainBytes);
      this.#codec.decodeChecked(stored, target, mac);
      return target;
    }
    const target = this.#arena.take(plainBytes);
    // A copy of the MAC: a view would drag its whole buffer to the worker.
    const outcome = await this.#run({ stored, target, mac: mac.slice() }, isGuess);
    // Not where the thread has died: it may have been writing to it.
    if (!('value' in outcome)) this.#arena.give(target);
    resultOf(outcome);
    return target;
  }

  giveBack(plain: Uint8Array): void {
    this.#arena.give(plain);
  }

  async verify(plain: Uint8Array, mac: Uint8Array): Promise<void> {
    if (plain.byteLength <= this.#inlineBytesMax) requireMac(this.#codec, plain, mac);
    else resultOf(await this.#run({ target: plain, mac: mac.slice() }));
  }

  /** Waits for threads that are still loading: Node.js 20 dies when a thread is ended in the middle of an import. */
  async close(): Promise<void> {
    for (const thread of this.#loading.keys()) thread.ref();
    await Promise.all(this.#loading.values());
    await this.#pool.close();
  }

  #watchLoading(): void {
    for (const thread of this.#pool.threads) {
      if (this.#loading.has(thread)) continue;
      const loaded = new Promise<void>((resolve) => {
        // Piscina's threads say first of all that they are ready.
        thread.once('message', () => resolve());
        thread.once('exit', () => {
          this.#loading.delete(thread);
          resolve();
        });
      });
      this.#loading.set(thread, loaded);
    }
  }

  async #run(task: ChunkTask, isGuess?: () => boolean): Promise<Outcome<void>> {
    try {
      return await this.#pool.run(queued(task, isGuess));
    } catch (error) {
      // The thread died or ran out of memory; the pool starts another. Its requests fail, the server goes on.
      throw new StoreUnavailableError(`A decoding thread failed: ${(error as Error).message}`, { cause: error });
    }
  }
}
