import { LRUCache } from 'lru-cache';
import { MAC_BYTES, toHex } from '../core/mac.ts';
import type { Repository } from '../kloset/repository.ts';
import { type ChunkTable, readChunkTable } from '../kloset/vfs.ts';
import { SHARED_TABLES_BYTES_MAX } from './limits.ts';

/** What a kept table costs beside its 40 bytes a chunk: key, list and map entries, the array objects. */
const OVERHEAD_BYTES = 512;

/** Chunk tables by their object, for all snapshots of a store: those that are opened twice, or share files, read each once. */
export class ChunkTables {
  readonly #repository: Repository;
  readonly #tables = new LRUCache<string, ChunkTable>({
    maxSize: SHARED_TABLES_BYTES_MAX,
    maxEntrySize: SHARED_TABLES_BYTES_MAX,
    sizeCalculation: ({ starts }) => OVERHEAD_BYTES + starts.length * (MAC_BYTES + 8),
  });
  readonly #inFlight = new Map<string, Promise<ChunkTable>>();

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  /** As readChunkTable; whoever asks while it is being read waits for the same reading. */
  async read(object: Uint8Array): Promise<ChunkTable> {
    const key = toHex(object);
    const known = this.#tables.get(key);
    if (known !== undefined) return known;
    const reading = this.#inFlight.get(key) ?? this.#start(key, object);
    return reading;
  }

  #start(key: string, object: Uint8Array): Promise<ChunkTable> {
    const reading = readChunkTable(this.#repository, object);
    this.#inFlight.set(key, reading);
    const forget = () => void this.#inFlight.delete(key);
    reading.then((table) => {
      this.#tables.set(key, table);
      forget();
    }, forget);
    return reading;
  }
}
