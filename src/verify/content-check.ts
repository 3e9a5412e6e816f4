import { type ByteBudget, mapConcurrently } from '../core/concurrency.ts';
import type { Decoder } from '../core/decoder.ts';
import { CorruptStoreError, type KlosetNbdError } from '../core/errors.ts';
import { MAC_BYTES, toHex } from '../core/mac.ts';
import { resourceTypes } from '../kloset/format.ts';
import type { Repository } from '../kloset/repository.ts';
import { readChunkTable } from '../kloset/vfs.ts';
import { CHUNKS_IN_FLIGHT_MAX } from './limits.ts';
import { type Problem, requireDamage } from './problems.ts';
import { SoundSet } from './sound-set.ts';

/** What is wrong with a content, whichever files have it. */
export type ContentProblem = Pick<Problem, 'chunk' | 'error'>;

export interface CheckedContent {
  /** Bytes of all chunks; undefined if that cannot be known. */
  readonly sizeBytes: number | undefined;
  readonly problems: readonly ContentProblem[];
}

/** Checks contents (an object and its chunks), each once however many files, and snapshots, share it. */
export class ContentCheck {
  readonly #repository: Repository;
  readonly #decoder: Decoder;
  readonly #budget: ByteBudget;
  readonly #withData: boolean;
  /** Objects found sound, with the size of their content; and chunks, with their length. */
  readonly #soundObjects = new SoundSet();
  readonly #soundChunks = new SoundSet();
  /** Those being looked at, and those that are damaged, by `MAC:length`: there are few of either. */
  readonly #objects = new Map<string, Promise<CheckedContent>>();
  readonly #chunks = new Map<string, Promise<KlosetNbdError | undefined>>();
  /** Chunks read and compared, or without `withData` looked up. */
  chunksChecked = 0;

  /** `withData`: read every chunk; else only see that the index has it. All parts stay the caller's. */
  constructor(parts: { repository: Repository; decoder: Decoder; budget: ByteBudget; withData: boolean }) {
    this.#repository = parts.repository;
    this.#decoder = parts.decoder;
    this.#budget = parts.budget;
    this.#withData = parts.withData;
  }

  /** Checks the object with that MAC and its chunks. Rejects only with what says nothing about the store. */
  check(object: Uint8Array): Promise<CheckedContent> {
    const sizeBytes = this.#soundObjects.get(object);
    if (sizeBytes !== undefined) return Promise.resolve({ sizeBytes, problems: [] });
    return once(this.#objects, toHex(object), {
      work: () => this.#checkObject(object),
      isSound: ({ problems }) => problems.length === 0,
      keep: (checked) => this.#soundObjects.set(object, checked.sizeBytes!),
    });
  }

  async #checkObject(object: Uint8Array): Promise<CheckedContent> {
    let table: Awaited<ReturnType<typeof readChunkTable>>;
    try {
      table = await readChunkTable(this.#repository, object);
    } catch (error) {
      return { sizeBytes: undefined, problems: [{ error: requireDamage(error) }] };
    }
    const { macs, starts } = table;
    const problems: ContentProblem[] = [];
    const indexes = [...starts.keys()].slice(0, -1);
    await mapConcurrently(indexes, CHUNKS_IN_FLIGHT_MAX, async (index) => {
      const mac = macs.subarray(index * MAC_BYTES, (index + 1) * MAC_BYTES);
      const offset = starts[index]!;
      const lengthBytes = starts[index + 1]! - offset;
      const error = await this.#checkChunk(mac, lengthBytes);
      if (error !== undefined) problems.push({ chunk: { index, offset, lengthBytes }, error });
    });
    problems.sort((a, b) => a.chunk!.index - b.chunk!.index);
    return { sizeBytes: starts[starts.length - 1]!, problems };
  }

  #checkChunk(mac: Uint8Array, lengthBytes: number): Promise<KlosetNbdError | undefined> {
    if (this.#soundChunks.get(mac) === lengthBytes) return Promise.resolve(undefined);
    return once(this.#chunks, `${toHex(mac)}:${lengthBytes}`, {
      work: () => this.#readChunk(mac, lengthBytes),
      isSound: (error) => error === undefined,
      keep: () => this.#soundChunks.set(mac, lengthBytes),
    });
  }

  async #readChunk(mac: Uint8Array, lengthBytes: number): Promise<KlosetNbdError | undefined> {
    const id = { type: resourceTypes.chunk, mac };
    this.chunksChecked++;
    try {
      const storedBytes = await this.#repository.storedLength(id);
      if (storedBytes === undefined)
        throw new CorruptStoreError(`The store holds no chunk ${toHex(mac)}`, { details: { mac: toHex(mac) } });
      if (!this.#withData) return undefined;
      await this.#budget.with(storedBytes + lengthBytes, async () => {
        const plain = await this.#repository.fetchBlob(id, {
          plainBytesMax: lengthBytes,
          decode: (stored) => this.#decoder.decode(stored, { mac, plainBytes: lengthBytes }),
        });
        this.#decoder.giveBack?.(plain);
      });
      return undefined;
    } catch (error) {
      return requireDamage(error);
    }
  }
}

/** Joins whoever does the same already; what is found sound leaves `known` for where it takes less. */
function once<T>(
  known: Map<string, Promise<T>>,
  key: string,
  { work, isSound, keep }: { work: () => Promise<T>; isSound: (result: T) => boolean; keep: (result: T) => void },
): Promise<T> {
  const before = known.get(key);
  if (before !== undefined) return before;
  const result = work().then((value) => {
    if (isSound(value)) {
      keep(value);
      known.delete(key);
    }
    return value;
  });
  known.set(key, result);
  return result;
}
