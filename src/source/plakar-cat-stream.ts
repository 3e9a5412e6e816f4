/**
 * One `plakar cat` process from start to end: its output is cut along the chunk tables of the files asked for, every
 * chunk's MAC is checked as soon as the chunk is complete, and only then is it handed out.
 *
 *   stdout ──> fill chunk n+1 ──> (n verified and handed out?) ──> verify n+1 ──> hand out n+1 ──> …
 *
 * While chunks are kept, chunk n is verified and written to the spool while n+1 arrives: two chunks of a stream are in
 * memory at once. Nothing is read ahead of that; a child that is faster than we are blocks on its pipe.
 *
 * The last chunk waits for the proof that the output ends there: end of file and exit code 0. Too much output, or an
 * error after the last byte, thus fails the file although each of its chunks was right: program and chunk table
 * disagree on what the file is. A byte that does not fit is never skipped to fall into step again.
 */
import type { ChunkRef, FileRef } from '../core/chunk-store.ts';
import type { ReadCounters } from '../core/counters.ts';
import type { Decoder } from '../core/decoder.ts';
import { CorruptStoreError } from '../core/errors.ts';
import { countContent } from '../core/file-costs.ts';
import { catCommand, ownTextIn, quote, words } from './plakar-cat-command.ts';
import type { PlakarOptions } from './plakar-cat-options.ts';
import { IdleError, InterruptedError, PlakarProcess, type ProcessLimits } from './plakar-cat-process.ts';

/** Why a stream ended before its files did. */
export interface CatFailure {
  /** The chunk that was due: `files[fileIndex].chunks[chunkIndex]`. All before it were handed out. */
  readonly fileIndex: number;
  readonly chunkIndex: number;
  /** What happened, as a clause: no subject, no secrets. */
  readonly reason: string;
  /** `corrupt`: wrong, missing or surplus bytes although all seemed well. `unavailable`: the program says or shows that it failed. */
  readonly kind: 'corrupt' | 'unavailable';
  /** Any other file would fail the same way. */
  readonly storeWide: boolean;
  /** A second stream may do better. Not after a time-out: whoever waits has waited long enough. */
  readonly retriable: boolean;
  readonly cause?: unknown;
}

export interface CatStreamOptions {
  readonly plakar: PlakarOptions;
  readonly limits: ProcessLimits;
  readonly files: readonly FileRef[];
  readonly decoder: Decoder;
  readonly counters: ReadCounters;
  /**
   * Asked before each chunk is read; settles when the stream may go on. Until then nothing is read and no time counts.
   * `false` ends the stream.
   */
  readonly mayRead: (fileIndex: number, chunkIndex: number) => Promise<boolean>;
  /** Whether a chunk may be read before the one ahead of it has been handed out. */
  readonly mayOverlap: () => boolean;
  /** A chunk has passed. The chunk behind the next one is not read before this settles. Must not reject. */
  readonly passed: (fileIndex: number, chunkIndex: number, bytes: Uint8Array) => Promise<void>;
}

interface Place {
  readonly fileIndex: number;
  readonly chunkIndex: number;
  readonly chunk: ChunkRef;
  /** Of the whole stream. */
  readonly last: boolean;
}

type Trouble = 'mismatch' | 'short' | 'surplus' | 'ending' | 'idle' | 'check';

/** Leaves the cutting loop with what is known at that moment; `#explain` adds the child's own words. */
class TroubleError extends Error {
  readonly trouble: Trouble;
  readonly place: Place;
  /** Output that does not fit. */
  readonly output: Uint8Array;

  constructor(
    trouble: Trouble,
    place: Place,
    { output = new Uint8Array(), cause }: { output?: Uint8Array; cause?: unknown } = {},
  ) {
    super(trouble, { cause });
    this.trouble = trouble;
    this.place = place;
    this.output = output;
  }
}

export class CatStream {
  readonly #options: CatStreamOptions;
  readonly #process: PlakarProcess;
  /** Output that arrived together with the end of the chunk before. */
  #rest: Uint8Array = new Uint8Array();
  /** The check and delivery of the chunk before. */
  #settling: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: CatStreamOptions) {
    this.#options = options;
    options.counters.storeRequests++;
    this.#process = new PlakarProcess(catCommand(options.plakar, options.files), options.plakar, options.limits);
  }

  /** Settles once the child is gone: undefined if every chunk passed or the stream was stopped. Never rejects. */
  async run(): Promise<CatFailure | undefined> {
    try {
      await this.#cut();
      return undefined;
    } catch (error) {
      // A chunk may turn out wrong while the next one fails to come: the earlier place is the one to name.
      const first = await this.#settling.then(
        () => error,
        (earlier: unknown) => earlier,
      );
      return this.#stopped ? undefined : await this.#explain(first);
    } finally {
      await this.#process.end();
    }
  }

  /** Ends the stream; `run` settles soon. A pending `mayRead` is its owner's to settle. */
  stop(): void {
    this.#stopped = true;
    this.#process.interrupt();
  }

  async #cut(): Promise<void> {
    for (const place of places(this.#options.files)) {
      // Read too far, a chunk would pass before somebody asks for it.
      if (!this.#options.mayOverlap()) await this.#settling;
      if (!(await this.#options.mayRead(place.fileIndex, place.chunkIndex))) this.stop();
      if (this.#stopped) throw new InterruptedError();
      const bytes = await this.#fill(place);
      await this.#settling;
      this.#settling = this.#settle(place, bytes);
      // Awaited by the next round; but that may be waiting for output which never comes.
      this.#settling.catch(() => this.#process.interrupt());
    }
    await this.#settling;
  }

  /** The next `lengthBytes` of output. */
  async #fill(place: Place): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafeSlow(place.chunk.lengthBytes);
    for (let filled = 0; filled < bytes.byteLength; ) {
      const piece = this.#rest.byteLength > 0 ? this.#rest : await this.#next(place);
      if (piece === undefined) throw new TroubleError('short', place, { output: bytes.subarray(0, filled) });
      const taken = piece.subarray(0, bytes.byteLength - filled);
      bytes.set(taken, filled);
      filled += taken.byteLength;
      this.#rest = piece.subarray(taken.byteLength);
    }
    return bytes;
  }

  async #next(place: Place): Promise<Uint8Array | undefined> {
    const piece = await this.#process.next().catch((error: unknown) => {
      throw error instanceof IdleError ? new TroubleError('idle', place, { cause: error }) : error;
    });
    this.#options.counters.storeBytes += piece?.byteLength ?? 0;
    return piece;
  }

  async #settle(place: Place, bytes: Uint8Array): Promise<void> {
    const { decoder, counters, passed } = this.#options;
    await decoder.verify(bytes, place.chunk.mac).catch((cause: unknown) => {
      throw new TroubleError(cause instanceof CorruptStoreError ? 'mismatch' : 'check', place, {
        output: bytes,
        cause,
      });
    });
    counters.chunksFetched++;
    counters.decodedBytes += bytes.byteLength;
    // What cat says is plain, and comes once.
    countContent(counters, place.chunk, { storedBytes: bytes.byteLength, isNew: true, ms: 0 });
    if (place.last) await this.#expectEnd(place);
    await passed(place.fileIndex, place.chunkIndex, bytes);
  }

  async #expectEnd(place: Place): Promise<void> {
    const surplus = this.#rest.byteLength > 0 ? this.#rest : await this.#next(place);
    if (surplus !== undefined) throw new TroubleError('surplus', place, { output: surplus });
    const ending = await this.#process.ending().catch((error: unknown) => {
      throw error instanceof IdleError ? new TroubleError('idle', place, { cause: error }) : error;
    });
    if (ending !== undefined) throw new TroubleError('ending', place);
  }

  /** Turns what broke the loop into a failure, with what the child says about it. */
  async #explain(error: unknown): Promise<CatFailure | undefined> {
    if (error instanceof InterruptedError) return undefined;
    if (!(error instanceof TroubleError)) throw error;
    const { plakar, limits } = this.#options;
    const { trouble, place, output, cause } = error;
    const ending = trouble === 'idle' || trouble === 'check' ? undefined : await this.#process.lastWords();
    const said =
      quote(this.#process.complaints, plakar) || quote(ownTextIn(Buffer.concat([output, this.#rest])), plakar);
    const what: Record<Trouble, string> = {
      mismatch: 'its bytes do not match their MAC',
      short: `${place.chunk.lengthBytes - output.byteLength} of its ${place.chunk.lengthBytes} bytes are missing`,
      surplus: 'plakar cat gives more bytes than the file has',
      ending: 'plakar cat failed after the last byte',
      idle: `plakar cat gave nothing for ${limits.idleTimeoutMs / 1000} s: check that the store can be reached`,
      check: 'it could not be checked',
    };
    return {
      fileIndex: place.fileIndex,
      chunkIndex: place.chunkIndex,
      reason: `${[what[trouble], ...(ending === undefined ? [] : [ending.reason])].join('; ')}${words(said)}`,
      kind: ending === undefined && ['mismatch', 'short', 'surplus'].includes(trouble) ? 'corrupt' : 'unavailable',
      storeWide: ending?.storeWide ?? false,
      retriable: trouble !== 'idle' && trouble !== 'check' && ending?.storeWide !== true,
      cause,
    };
  }
}

/** All chunks of the files in the order of `cat`'s output. */
function* places(files: readonly FileRef[]): Generator<Place> {
  const total = files.reduce((sum, file) => sum + file.chunks.length, 0);
  let seen = 0;
  for (const [fileIndex, file] of files.entries()) {
    for (const [chunkIndex, chunk] of file.chunks.entries()) {
      seen++;
      yield { fileIndex, chunkIndex, chunk, last: seen === total };
    }
  }
}
