import { createHash } from 'node:crypto';
import { CorruptStoreError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { equalBytes, toHex } from '../core/mac.ts';
import { formatBytes } from '../core/units.ts';
import type { BlobId, BlobReplica } from '../kloset/blob-replica.ts';
import { type Clock, systemClock } from '../kloset/clock.ts';
import { NAMED_AT_RANDOM, resourceTypeName } from '../kloset/format.ts';
import { OpenFiles } from '../kloset/open-files.ts';
import { dataFileSizes, dataPath } from './data-files.ts';
import type { HydratedBlob, HydratedSnapshot } from './format.ts';
import type { IndexFile } from './index-file.ts';
import { DAMAGE_NAMED_MAX, LOOK_AGAIN_MS, OPEN_DATA_FILES_MAX } from './limits.ts';
import { RecordTable } from './record-table.ts';

export interface HydratedBlobsOptions {
  readonly directory: string;
  readonly index: IndexFile;
  readonly log: Log;
  readonly clock?: Clock;
}

/** Who takes what clients' reads bring. */
export type OfferTaker = (id: BlobId, stored: Uint8Array, isNeeded: boolean) => void;

/** The blobs of a hydrated directory, for reading; what another process adds to it is seen, too. */
export class HydratedBlobs implements BlobReplica {
  /** Set by the one that writes in this process. */
  onOffer: OfferTaker | undefined;
  readonly directory: string;
  readonly index: IndexFile;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #files = new OpenFiles(OPEN_DATA_FILES_MAX);
  readonly #table = new RecordTable();
  readonly #snapshots = new Map<string, HydratedSnapshot>();
  /** Records whose bytes were found to be damaged. */
  readonly #rejected = new Set<number>();
  #sizes = new Map<number, number>();
  /** Bytes of each data file that records name. */
  readonly #ends = new Map<number, number>();
  #recordEnd = 0;
  /** Records that are damaged, or whose bytes are gone. */
  #lost = 0;
  #lookedAtMs: number;
  #looking: Promise<void> | undefined;

  private constructor({ directory, index, log, clock = systemClock }: HydratedBlobsOptions) {
    this.directory = directory;
    this.index = index;
    this.#log = log;
    this.#clock = clock;
    this.#lookedAtMs = clock.now();
  }

  /** Takes the index over. */
  static async open(options: HydratedBlobsOptions): Promise<HydratedBlobs> {
    const blobs = new HydratedBlobs(options);
    try {
      await blobs.#load();
      return blobs;
    } catch (error) {
      await blobs.close();
      throw error;
    }
  }

  /** Nothing of what the index names was found to be damaged or gone. */
  get isSound(): boolean {
    return this.#lost === 0 && this.#rejected.size === 0;
  }

  /** The number that the next record gets. */
  get recordEnd(): number {
    return this.#recordEnd;
  }

  /** The last data file and where the next blob goes in it; file 1 at byte 0 for an empty directory. */
  get dataEnd(): { readonly file: number; readonly offset: number } {
    const file = Math.max(1, ...this.#ends.keys());
    return { file, offset: this.#ends.get(file) ?? 0 };
  }

  completeSnapshots(): readonly Uint8Array[] {
    return [...this.#snapshots.values()].filter(({ isComplete }) => isComplete).map(({ id }) => id);
  }

  /** How far a snapshot is; undefined for one that was not begun. */
  snapshot(id: string): HydratedSnapshot | undefined {
    return this.#snapshots.get(id);
  }

  describeIncomplete(): readonly string[] {
    return [...this.#snapshots.values()].filter(({ isComplete }) => !isComplete).map(describeShare);
  }

  async has(id: BlobId): Promise<boolean> {
    return (await this.#locate(id)) !== undefined;
  }

  async lengthOf(id: BlobId): Promise<number | undefined> {
    return (await this.#locate(id))?.length;
  }

  async read(
    id: BlobId,
    take: (length: number) => Uint8Array<SharedArrayBuffer>,
  ): Promise<Uint8Array<SharedArrayBuffer> | undefined> {
    const blob = await this.#locate(id);
    if (blob === undefined) return undefined;
    const stored = take(blob.length);
    const path = dataPath(this.directory, blob.file);
    try {
      const handle = await this.#files.acquire(path);
      try {
        const filled = await handle.fill(blob.offset, stored);
        if (filled < stored.byteLength)
          throw new CorruptStoreError(`${path} ends before byte ${blob.offset + blob.length}`);
      } finally {
        handle.release();
      }
      requireSha256(blob, stored);
      return stored;
    } catch (error) {
      this.#files.forget(path);
      this.reject(id, error as Error);
      return undefined;
    }
  }

  reject({ type, mac }: BlobId, why: Error): void {
    const known = this.#rejected.size;
    for (const record of this.#table.candidates(mac)) this.#rejected.add(record);
    if (this.#rejected.size === known || known >= DAMAGE_NAMED_MAX) return;
    const what = `${resourceTypeName(type)} ${toHex(mac)}`;
    this.#log.warn(
      { directory: this.directory, blobType: resourceTypeName(type), mac: toHex(mac), reason: why.message },
      `What was hydrated in ${this.directory} is damaged (${what}: ${why.message}): it is read from the store instead` +
        (known === DAMAGE_NAMED_MAX - 1 ? '. Further damage is not named' : ''),
    );
  }

  offer(id: BlobId, stored: Uint8Array): void {
    if (this.onOffer === undefined) return;
    const isNeeded =
      this.#rejected.size > 0 && this.#table.candidates(id.mac).some((record) => this.#rejected.has(record));
    this.onOffer(id, stored, isNeeded);
  }

  /** Records that were written from `recordEnd` on, in their order. */
  adopt(records: readonly ({ readonly blob: HydratedBlob } | { readonly snapshot: HydratedSnapshot })[]): void {
    for (const record of records) {
      if ('blob' in record) {
        this.#sizes.set(record.blob.file, Math.max(this.#sizes.get(record.blob.file) ?? 0, endOf(record.blob)));
        this.#addBlob(this.#recordEnd, record.blob);
      } else this.#snapshots.set(toHex(record.snapshot.id), record.snapshot);
      this.#recordEnd++;
    }
  }

  async close(): Promise<void> {
    this.#files.close();
    await this.index.close();
  }

  async #locate(id: BlobId): Promise<HydratedBlob | undefined> {
    const found = await this.#find(id);
    // Whoever writes in this process tells of it.
    if (found !== undefined || this.onOffer !== undefined) return found;
    if (this.#clock.now() - this.#lookedAtMs < LOOK_AGAIN_MS) return undefined;
    this.#looking ??= this.#load().finally(() => {
      this.#looking = undefined;
    });
    await this.#looking;
    return this.#find(id);
  }

  async #find({ type, mac }: BlobId): Promise<HydratedBlob | undefined> {
    for (const record of this.#table.candidates(mac)) {
      if (this.#rejected.has(record)) continue;
      const blob = await this.index.readBlob(record);
      if (blob !== undefined && blob.type === type && equalBytes(blob.mac, mac)) return blob;
    }
    return undefined;
  }

  /** Reads what is new in the index. */
  async #load(): Promise<void> {
    this.#lookedAtMs = this.#clock.now();
    // First the index, then the files' sizes: what is in the index by then is in the files.
    const found: { readonly record: number; readonly blob: HydratedBlob }[] = [];
    let lost = 0;
    const settle = async () => {
      if (found.some(({ blob }) => endOf(blob) > (this.#sizes.get(blob.file) ?? 0))) {
        this.#sizes = await dataFileSizes(this.directory);
      }
      for (const { record, blob } of found.splice(0)) {
        if (endOf(blob) <= (this.#sizes.get(blob.file) ?? 0)) this.#addBlob(record, blob);
        else lost++;
      }
    };
    const { end, damaged } = await this.index.readFrom(
      this.#recordEnd,
      {
        blob: (record, { mac, sha256: _, ...blob }) =>
          void found.push({ record, blob: { ...blob, mac: new Uint8Array(mac), sha256: NO_SHA256 } }),
        snapshot: (snapshot) =>
          void this.#snapshots.set(toHex(snapshot.id), { ...snapshot, id: new Uint8Array(snapshot.id) }),
      },
      settle,
    );
    this.#recordEnd = end;
    this.#lost += damaged + lost;
    if (damaged + lost === 0) return;
    this.#log.warn(
      { directory: this.directory, damaged, lost },
      `Of what was hydrated in ${this.directory}, ${damaged} records are damaged and the bytes of ${lost} blobs are gone: they are read from the store instead`,
    );
  }

  #addBlob(record: number, blob: HydratedBlob): void {
    this.#table.add(blob.mac, record);
    this.#ends.set(blob.file, Math.max(this.#ends.get(blob.file) ?? 0, endOf(blob)));
  }
}

const NO_SHA256 = new Uint8Array(32);

function endOf({ offset, length }: HydratedBlob): number {
  return offset + length;
}

/** SHA-256 of stored bytes where nothing else covers them. */
export function sha256Of(type: number, stored: Uint8Array): Uint8Array {
  return NAMED_AT_RANDOM.includes(type) ? createHash('sha256').update(stored).digest() : NO_SHA256;
}

function requireSha256({ type, sha256 }: HydratedBlob, stored: Uint8Array): void {
  if (!equalBytes(sha256Of(type, stored), sha256)) throw new CorruptStoreError('its checksum is wrong');
}

/** How far a snapshot is, for people. */
export function describeShare({ id, chunkBytes, doneBytes }: HydratedSnapshot): string {
  const percent = chunkBytes === 0 ? 0 : Math.floor((100 * doneBytes) / chunkBytes);
  return `snapshot ${toHex(id).slice(0, 8)} is there by ${percent} % (${formatBytes(doneBytes)} of ${formatBytes(chunkBytes)})`;
}
