import { availableParallelism } from 'node:os';
import { Piscina } from 'piscina';
import type { Decoder } from '../core/decoder.ts';
import { StoreUnavailableError } from '../core/errors.ts';
import { INLINE_DECODE_BYTES_MAX } from '../core/limits.ts';
import { type Outcome, resultOf } from '../core/outcome.ts';
import { type Codec, type CodecParameters, createCodec } from '../kloset/codec/codec.ts';
import { decodeChecked, requireMac } from './check-chunk.ts';
import type { ChunkTask } from './message.ts';
import { workerFile } from './worker-file.ts';

/** Decodes small values in the calling thread and large ones in a pool of worker threads, through shared memory. */
export class PooledDecoder implements Decoder {
  readonly #codec: Codec;
  readonly #pool: Piscina<ChunkTask, Outcome<void>>;
  readonly #inlineBytesMax: number;

  private constructor(codec: Codec, pool: Piscina<ChunkTask, Outcome<void>>, inlineBytesMax: number) {
    this.#codec = codec;
    this.#pool = pool;
    this.#inlineBytesMax = inlineBytesMax;
  }

  /** `threads`: default one fewer than the machine has cores, since the main thread needs one. */
  static async start(
    parameters: CodecParameters,
    {
      threads = Math.max(1, availableParallelism() - 1),
      inlineBytesMax = INLINE_DECODE_BYTES_MAX,
    }: { threads?: number; inlineBytesMax?: number } = {},
  ): Promise<PooledDecoder> {
    // First: if it fails here it fails in the threads, and no pool is left behind.
    const codec = await createCodec(parameters);
    const pool = new Piscina<ChunkTask, Outcome<void>>({
      filename: workerFile('codec-worker'),
      workerData: parameters,
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
    });
    // A thread that dies is replaced, and the task it had is rejected: nothing more is to be done here.
    pool.on('error', () => {});
    return new PooledDecoder(codec, pool, inlineBytesMax);
  }

  async decode(stored: Uint8Array, { mac, plainBytes }: { mac: Uint8Array; plainBytes: number }): Promise<Uint8Array> {
    if (plainBytes <= this.#inlineBytesMax) {
      const target = new Uint8Array(plainBytes);
      decodeChecked(this.#codec, stored, target, mac);
      return target;
    }
    const target = new Uint8Array(new SharedArrayBuffer(plainBytes));
    // A copy of the MAC: a view would drag its whole buffer to the worker.
    resultOf(await this.#run({ stored, target, mac: mac.slice() }));
    return target;
  }

  async verify(plain: Uint8Array, mac: Uint8Array): Promise<void> {
    if (plain.byteLength <= this.#inlineBytesMax) requireMac(this.#codec, plain, mac);
    else resultOf(await this.#run({ target: plain, mac: mac.slice() }));
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }

  async #run(task: ChunkTask): Promise<Outcome<void>> {
    try {
      return await this.#pool.run(task);
    } catch (error) {
      // The thread died or ran out of memory; the pool starts another. Its requests fail, the server goes on.
      throw new StoreUnavailableError(`A decoding thread failed: ${(error as Error).message}`, { cause: error });
    }
  }
}
