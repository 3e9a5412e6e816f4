/**
 * Writes small Kloset stores into memory, whatever a test wants in them: plaintext, SHA-256, not compressed. Faults are
 * put in through `onRead`.
 */
import { createHash, createHmac } from 'node:crypto';
import { CorruptStoreError } from '../../src/core/errors.ts';
import { toHex } from '../../src/core/mac.ts';
import { blake3 } from '../../src/kloset/codec/codec.ts';
import {
  envelopeHeader,
  locationRecord,
  packfileFooter,
  packfileIndexRecord,
  packfileRecord,
  type ResourceType,
  resourceTypes,
  stateMetadata,
  stateRecords,
  versions,
} from '../../src/kloset/format.ts';
import type { KlosetStore, ResourceKind } from '../../src/kloset/store.ts';
import { type Encodable, encodeMsgpack } from './msgpack-writer.ts';

const REPOSITORY_ID = Buffer.alloc(16, 7);
const KEY = createHash('sha256').update(REPOSITORY_ID).digest();

/** The MAC of such a store. */
export function macOf(plain: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac('sha256', KEY).update(plain).digest());
}

/** 32 bytes with `value` at the end: an id that a test can recognise. */
export function idOf(value: number): Uint8Array {
  const id = new Uint8Array(32);
  new DataView(id.buffer).setUint32(28, value);
  return id;
}

export function envelope(type: number, version: number, payload: Uint8Array, mac = macOf): Buffer {
  const header = envelopeHeader.encode({ magic: Buffer.from('_KLOSET_'), type, version });
  const covered = Buffer.concat([header, payload]);
  return Buffer.concat([covered, mac(covered)]);
}

/** CONFIG's fields, as the writer has them. */
export const configFields = {
  RepositoryID: REPOSITORY_ID,
  Chunking: { Algorithm: 'fastcdc-v1.0.0', MaxSize: 8 << 20 },
  Hashing: { Algorithm: 'SHA256', Bits: 256 },
  Compression: null as Encodable,
  Encryption: null as Encodable,
};

/** Type, length and body of a state's record. */
export function stateRecord(type: number, body: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head[0] = type;
  head.writeUInt32LE(body.byteLength, 1);
  return Buffer.concat([head, body]);
}

export interface StateParts {
  readonly parent?: Uint8Array;
  readonly records?: readonly Uint8Array[];
  readonly timestamp?: bigint;
  readonly version?: number;
}

/** A state's plain bytes. */
export function stateBytes({ parent, records = [], timestamp = 0n, version = versions.v1_1_0 }: StateParts): Buffer {
  const metadata = stateMetadata.encode({ version, timestampNanoseconds: timestamp });
  const head = version >= versions.v1_1_0 ? [parent ?? new Uint8Array(32)] : [];
  return Buffer.concat([...head, ...records, Buffer.from([1]), metadata]);
}

/** A store in memory. Blobs are added to packfiles by name; `finish` lists them in one state. */
export class StoreWriter implements KlosetStore {
  readonly location = 'memory';
  readonly states = new Map<string, Uint8Array>();
  readonly packfiles = new Map<string, Uint8Array>();
  /** Called with what was read, before the reader has it; may change it or throw. */
  onRead: (packfile: string, offset: number, target: Uint8Array) => void = () => {};
  reads = 0;
  closed = false;
  config: Uint8Array = new Uint8Array(0);
  readonly #records: Uint8Array[] = [];
  readonly #known = new Set<string>();
  /** Index records of each packfile. */
  readonly #indexes = new Map<string, Uint8Array[]>();

  /** Adds a blob and gives its MAC; `name` is for those that are not named by it, `packfile` a small number. */
  blob(type: ResourceType, plain: Uint8Array, { name = macOf(plain), packfile = 1 } = {}): Uint8Array {
    const id = toHex(idOf(packfile));
    const key = `${type}:${toHex(name)}:${id}`;
    if (this.#known.has(key)) return name;
    this.#known.add(key);
    const content = this.packfiles.get(id) ?? new Uint8Array(envelopeHeader.sizeBytes);
    const offset = content.byteLength - envelopeHeader.sizeBytes;
    this.packfiles.set(id, appended(content, plain));
    const record = packfileIndexRecord.encode({ blobType: type, blobMac: name, offset, length: plain.byteLength });
    this.#indexes.set(id, [...(this.#indexes.get(id) ?? []), record]);
    const location = { blobType: type, blobMac: name, packfileMac: idOf(packfile), offset, length: plain.byteLength };
    this.#records.push(stateRecord(stateRecords.location, locationRecord.encode(location)));
    return name;
  }

  record(type: ResourceType, fields: Encodable, options: { name?: Uint8Array; packfile?: number } = {}): Uint8Array {
    return this.blob(type, encodeMsgpack(fields), options);
  }

  /** An object whose content is `chunks`, and the chunks. */
  object(chunks: readonly Uint8Array[]): Uint8Array {
    const list = chunks.map((chunk) => ({
      contentMAC: this.blob(resourceTypes.chunk, chunk),
      length: chunk.byteLength,
    }));
    return this.record(resourceTypes.object, { contentMAC: macOf(Buffer.concat(chunks)), chunks: list });
  }

  /**
   * Makes CONFIG and the state, and closes the packfiles with index, footer and MAC (kloset-format 8.1); the store can
   * be opened then.
   */
  async finish(fields: Encodable = configFields): Promise<this> {
    const payload = encodeMsgpack(fields);
    const covered = envelope(resourceTypes.config, versions.v1_0_0, payload).subarray(0, -32);
    this.config = Buffer.concat([covered, await blake3(covered)]);
    for (const [id, index] of this.#indexes) this.#closePackfile(id, Buffer.concat(index));
    const listed = [...this.packfiles.keys()].map((id) =>
      stateRecord(stateRecords.packfile, packfileRecord.encode({ packfileMac: Buffer.from(id, 'hex') })),
    );
    const plain = stateBytes({ records: [...this.#records, ...listed] });
    this.states.set(toHex(idOf(1000)), envelope(resourceTypes.state, versions.v1_1_0, plain));
    return this;
  }

  #closePackfile(id: string, index: Buffer): void {
    const blobs = this.packfiles.get(id)!.subarray(envelopeHeader.sizeBytes);
    const count = index.byteLength / packfileIndexRecord.sizeBytes;
    const footer = packfileFooter.encode({ count, indexOffset: blobs.byteLength, indexMac: macOf(index) });
    const footerLength = Buffer.alloc(4);
    footerLength.writeUInt32LE(footer.byteLength);
    const payload = Buffer.concat([blobs, index, footer, footerLength]);
    this.packfiles.set(id, envelope(resourceTypes.packfile, versions.v1_0_0, payload));
  }

  async readConfig(): Promise<Uint8Array> {
    return this.config;
  }

  async list(kind: ResourceKind): Promise<string[]> {
    return [...(kind === 'states' ? this.states : this.packfiles).keys()].sort();
  }

  async readState(id: string): Promise<Uint8Array> {
    return this.states.get(id)!;
  }

  async readPackfile(id: string, offset: number, target: Uint8Array): Promise<void> {
    this.reads++;
    const content = this.packfiles.get(id);
    if (content === undefined || offset + target.byteLength > content.byteLength) {
      throw new CorruptStoreError(`it ends before byte ${offset + target.byteLength}`);
    }
    target.set(content.subarray(offset, offset + target.byteLength));
    this.onRead(id, offset, target);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** `content` with `more` behind it, in place where its buffer has room: a store of thousands of blobs takes no square of time. */
function appended(content: Uint8Array, more: Uint8Array): Uint8Array {
  const length = content.byteLength + more.byteLength;
  const backing =
    content.byteOffset === 0 && content.buffer.byteLength >= length ? content.buffer : new ArrayBuffer(2 * length);
  const all = new Uint8Array(backing, 0, length);
  if (backing !== content.buffer) all.set(content);
  all.set(more, content.byteLength);
  return all;
}
