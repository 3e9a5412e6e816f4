/**
 * Writes a big plaintext store (BLAKE3, not compressed) for benchmarks of opening: its index and one snapshot's metadata
 * are complete and valid, contents are not there. Files lie 1,000 to a directory; each has an entry of its own in the
 * index and, with three records a file, an object and a chunk of its own, as small files do.
 */
import { createHash, createSecretKey } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { toHex } from '../src/core/mac.ts';
import { MiB } from '../src/core/units.ts';
import { blake3, type Codec, createCodec, plainHash } from '../src/kloset/codec/codec.ts';
import {
  envelopeHeader,
  goMode,
  locationRecord,
  packfileFooter,
  packfileIndexRecord,
  packfileRecord,
  resourceTypes,
  stateMetadata,
  stateRecords,
  versions,
} from '../src/kloset/format.ts';
import { type Encodable, encodeMsgpack, Str } from '../test/support/msgpack-writer.ts';
import { configFields, stateRecord } from '../test/support/store-writer.ts';

export interface BigStoreOptions {
  readonly files: number;
  readonly recordsPerFile: 1 | 3;
}

const FILES_PER_DIRECTORY = 1000;
const PACKFILE_BYTES = 64 * MiB;
const RECORDS_PER_STATE = 2_000_000;
const NODE_KEYS = 40;
const NAME = 'file-00000000.dat';
const DIRECTORY = '/directory-00000';

export async function writeBigStore(folder: string, options: BigStoreOptions): Promise<void> {
  const codec = await createCodec({
    hashing: 'BLAKE3',
    macKey: createSecretKey(await plainHash('BLAKE3', configFields.RepositoryID)),
    compression: undefined,
    encryption: undefined,
  });
  const fields = { ...configFields, Hashing: { Algorithm: 'BLAKE3', Bits: 256 } };
  const covered = enveloped(resourceTypes.config, versions.v1_0_0, encodeMsgpack(fields));
  mkdirSync(join(folder, 'packfiles'), { recursive: true });
  mkdirSync(join(folder, 'states'), { recursive: true });
  writeFileSync(join(folder, 'CONFIG'), Buffer.concat([covered, await blake3(covered)]));
  await new BigStore(folder, codec, options).write();
}

function enveloped(type: number, version: number, payload: Uint8Array): Buffer {
  return Buffer.concat([envelopeHeader.encode({ magic: Buffer.from('_KLOSET_'), type, version }), payload]);
}

class BigStore {
  readonly #folder: string;
  readonly #codec: Codec;
  readonly #options: BigStoreOptions;
  #packfile:
    | { readonly id: Uint8Array; readonly stream: ReturnType<typeof createWriteStream>; bytes: number }
    | undefined;
  #packfiles = 0;
  #records: Buffer = Buffer.alloc(0);
  #recordBytes = 0;
  #recordCount = 0;
  #stateCount = 0;
  #statePackfiles: Uint8Array[] = [];

  constructor(folder: string, codec: Codec, options: BigStoreOptions) {
    this.#folder = folder;
    this.#codec = codec;
    this.#options = options;
  }

  async write(): Promise<void> {
    const directories = Math.ceil(this.#options.files / FILES_PER_DIRECTORY);
    const index: { key: string; value: Uint8Array }[] = [];
    const rootRecords: Buffer[] = [];
    for (let i = 0; i < directories; i++) {
      const path = numbered(DIRECTORY, i);
      const count = Math.min(FILES_PER_DIRECTORY, this.#options.files - i * FILES_PER_DIRECTORY);
      index.push({ key: path, value: await this.#object(await this.#dirpack(path, i * FILES_PER_DIRECTORY, count)) });
      rootRecords.push(this.#dirpackRecord(1, entry('/', path.slice(1), goMode.directory + 0o755, undefined)));
    }
    index.unshift({ key: '/', value: await this.#object(Buffer.concat(rootRecords)) });
    const rootEntry = await this.#blob(resourceTypes.vfsEntry, entry('/', '/', goMode.directory + 0o755, undefined));
    const files = { tree: resourceTypes.vfsTree, node: resourceTypes.vfsNode };
    const others = { tree: resourceTypes.indexTree, node: resourceTypes.indexNode };
    const root = await this.#tree(files, [{ key: '/', value: rootEntry }]);
    const dirpack = await this.#tree(others, index);
    const identifier = new Uint8Array(32).fill(9);
    const header = {
      identifier,
      timestamp: { seconds: 1_700_000_000, nanoseconds: 0 },
      tags: ['bench'],
      sources: [
        {
          importer: { type: 'fs', origin: 'bench', directory: '/' },
          root: { root, xattrs: new Uint8Array(32) },
          indexes: [{ name: 'dirpack', type: 'btree', value: dirpack }],
          summary: { directory: { children: directories }, below: { children: this.#options.files } },
        },
      ],
    };
    await this.#closePackfile();
    await this.#headerPackfile(encodeMsgpack(header), identifier);
    await this.#writeState(toHex(identifier));
  }

  async #dirpack(path: string, first: number, count: number): Promise<Buffer> {
    const records: Buffer[] = [];
    for (let i = first; i < first + count; i++) {
      const object = createHash('sha256').update(`object ${i}`).digest();
      const bytes = entry(path, numbered(NAME, i), 0o644, object);
      const record = this.#dirpackRecord(2, bytes);
      records.push(record);
      await this.#list(resourceTypes.vfsEntry, record.subarray(-32), 0, 300);
      if (this.#options.recordsPerFile === 1) continue;
      await this.#list(resourceTypes.object, object, 300, 200);
      await this.#list(resourceTypes.chunk, createHash('sha256').update(object).digest(), 500, 100);
    }
    return Buffer.concat(records);
  }

  #dirpackRecord(kind: number, bytes: Buffer): Buffer {
    const head = Buffer.alloc(5);
    head[0] = kind;
    head.writeUInt32LE(bytes.length + 32, 1);
    return Buffer.concat([head, bytes, this.#codec.mac(bytes)]);
  }

  async #object(content: Buffer): Promise<Uint8Array> {
    const contentMAC = await this.#blob(resourceTypes.chunk, content);
    const fields = { version: versions.v1_0_0, contentMAC, chunks: [{ contentMAC, length: content.length }] };
    return this.#blob(resourceTypes.object, encodeMsgpack(fields));
  }

  async #tree(types: { tree: number; node: number }, items: { key: string; value: Uint8Array }[]): Promise<Uint8Array> {
    let level: { first: string; mac: Uint8Array }[] = [];
    for (let at = 0; at < items.length; at += NODE_KEYS) {
      const part = items.slice(at, at + NODE_KEYS);
      const node = {
        keys: part.map(({ key }) => new Str(key)),
        pointers: null,
        values: part.map(({ value }) => value),
      };
      level.push({ first: part[0]!.key, mac: await this.#blob(types.node, encodeMsgpack(node)) });
    }
    while (level.length > 1) {
      const upper: typeof level = [];
      for (let at = 0; at < level.length; at += NODE_KEYS) {
        const part = level.slice(at, at + NODE_KEYS);
        const keys = part.slice(1).map(({ first }) => new Str(first));
        const node = { keys, pointers: part.map(({ mac }) => mac), values: null };
        upper.push({ first: part[0]!.first, mac: await this.#blob(types.node, encodeMsgpack(node)) });
      }
      level = upper;
    }
    return this.#blob(types.tree, encodeMsgpack({ Version: 0, Order: 50, Count: 0, Root: level[0]!.mac }));
  }

  async #blob(type: number, plain: Uint8Array, name = this.#codec.mac(plain)): Promise<Uint8Array> {
    const packfile = await this.#openPackfile();
    const offset = packfile.bytes;
    packfile.bytes += plain.length;
    if (!packfile.stream.write(plain)) await once(packfile.stream, 'drain');
    await this.#list(type, name, offset, plain.length, packfile.id);
    return name;
  }

  /** A whole packfile with nothing but the snapshot's header, whose one check is the packfile's envelope. */
  async #headerPackfile(header: Buffer, identifier: Uint8Array): Promise<void> {
    const packfile = await this.#openPackfile();
    await this.#blob(resourceTypes.snapshot, header, identifier);
    const index = packfileIndexRecord.encode({
      blobType: resourceTypes.snapshot,
      version: versions.v1_0_0,
      blobMac: identifier,
      length: header.length,
    });
    const footer = packfileFooter.encode({ count: 1, indexOffset: header.length, indexMac: this.#codec.mac(index) });
    const length = Buffer.alloc(4);
    length.writeUInt32LE(footer.length);
    const payload = Buffer.concat([header, index, footer, length]);
    const covered = enveloped(resourceTypes.packfile, versions.v1_0_0, payload);
    packfile.stream.write(Buffer.concat([payload.subarray(header.length), this.#codec.mac(covered)]));
    await this.#closePackfile();
  }

  async #openPackfile() {
    if (this.#packfile !== undefined && this.#packfile.bytes > PACKFILE_BYTES) await this.#closePackfile();
    if (this.#packfile === undefined) {
      const id = createHash('sha256')
        .update(`packfile ${this.#packfiles++}`)
        .digest();
      mkdirSync(join(this.#folder, 'packfiles', toHex(id).slice(0, 2)), { recursive: true });
      const stream = createWriteStream(join(this.#folder, 'packfiles', toHex(id).slice(0, 2), toHex(id)));
      stream.write(enveloped(resourceTypes.packfile, versions.v1_0_0, Buffer.alloc(0)));
      this.#packfile = { id, stream, bytes: 0 };
      this.#statePackfiles.push(id);
    }
    return this.#packfile;
  }

  async #closePackfile(): Promise<void> {
    this.#packfile?.stream.end();
    if (this.#packfile !== undefined) await finished(this.#packfile.stream);
    this.#packfile = undefined;
  }

  async #list(type: number, mac: Uint8Array, offset: number, length: number, packfile?: Uint8Array): Promise<void> {
    const size = 5 + locationRecord.sizeBytes;
    if (this.#recordBytes + size > this.#records.length) this.#growRecords();
    const at = this.#recordBytes;
    this.#recordBytes += size;
    this.#records[at] = stateRecords.location;
    this.#records.writeUInt32LE(locationRecord.sizeBytes, at + 1);
    this.#records[at + 5] = type;
    this.#records.writeUInt32LE(versions.v1_0_0, at + 6);
    this.#records.set(mac, at + 10);
    this.#records.set(packfile ?? (await this.#openPackfile()).id, at + 42);
    this.#records.writeBigUInt64LE(BigInt(offset), at + 74);
    this.#records.writeUInt32LE(length, at + 82);
    if (++this.#recordCount === RECORDS_PER_STATE) await this.#writeState();
  }

  #growRecords(): void {
    const wider = Buffer.alloc(Math.max(MiB, this.#records.length * 2));
    wider.set(this.#records);
    this.#records = wider;
  }

  async #writeState(id?: string): Promise<void> {
    const listed = this.#statePackfiles.map((packfileMac) =>
      stateRecord(stateRecords.packfile, packfileRecord.encode({ packfileMac })),
    );
    const number = ++this.#stateCount;
    const timestampNanoseconds = BigInt(number) * 1_000_000_000n;
    const metadata = stateMetadata.encode({ version: versions.v1_1_0, timestampNanoseconds });
    const plain = Buffer.concat([
      new Uint8Array(32),
      this.#records.subarray(0, this.#recordBytes),
      ...listed,
      Buffer.from([1]),
      metadata,
    ]);
    const covered = enveloped(resourceTypes.state, versions.v1_1_0, plain);
    // The last state of a backup has its snapshot's id.
    const name = id ?? createHash('sha256').update(`state ${number}`).digest('hex');
    mkdirSync(join(this.#folder, 'states', name.slice(0, 2)), { recursive: true });
    writeFileSync(
      join(this.#folder, 'states', name.slice(0, 2), name),
      Buffer.concat([covered, this.#codec.mac(covered)]),
    );
    this.#recordBytes = 0;
    this.#recordCount = 0;
    // The packfile that is being written is listed by the next state, too.
    this.#statePackfiles = this.#packfile === undefined ? [] : [this.#packfile.id];
  }
}

function numbered(pattern: string, number: number): string {
  return pattern.replace(/0+/, (zeroes) => String(number).padStart(zeroes.length, '0'));
}

const templates = new Map<string, { readonly bytes: Buffer; readonly nameAt: number; readonly objectAt: number }>();

/** A vfs-entry with all keys the writer has. Entries of one directory differ in name and object only. */
function entry(parent: string, name: string, mode: number, object: Uint8Array | undefined): Buffer {
  const key = `${parent}|${mode}|${name.length}`;
  let template = templates.get(key);
  if (template === undefined) {
    templates.clear();
    const placeholder = Buffer.alloc(32, 0xee);
    const bytes = encodeAsWriter(entryFields(parent, name, mode, placeholder));
    template = {
      bytes,
      nameAt: bytes.indexOf(`${name}`, bytes.indexOf('file_info')),
      objectAt: bytes.indexOf(placeholder),
    };
    templates.set(key, template);
  }
  const bytes = Buffer.from(template.bytes);
  bytes.write(name, template.nameAt, 'latin1');
  bytes.set(object ?? new Uint8Array(32), template.objectAt);
  return bytes;
}

/** As the writer encodes an entry: short keys and strings in their short form, integers in eight bytes. */
function encodeAsWriter(value: Encodable): Buffer {
  if (typeof value === 'string') return encodeAsWriter(new Str(value));
  if (value instanceof Str) {
    const isShort = value.bytes.length < 32;
    const head = isShort ? [0xa0 | value.bytes.length] : [0xd9, value.bytes.length];
    return Buffer.concat([Buffer.from(head), value.bytes]);
  }
  if (value instanceof Uint8Array) return Buffer.concat([Buffer.from([0xc4, value.length]), value]);
  const isMap = typeof value === 'object' && value !== null && !('seconds' in value);
  if (!isMap) return encodeMsgpack(value);
  const fields = Object.entries(value as Record<string, Encodable>);
  const parts = fields.flatMap(([key, field]) => [encodeAsWriter(key), encodeAsWriter(field)]);
  return Buffer.concat([Buffer.from([0x80 | fields.length]), ...parts]);
}

function entryFields(parent: string, name: string, mode: number, object: Uint8Array): Encodable {
  return {
    version: versions.v1_0_0,
    parent_path: new Str(parent),
    file_info: {
      name: new Str(name),
      size: mode >= goMode.directory ? 4096 : 100,
      mode,
      mod_time: { seconds: 1_700_000_000, nanoseconds: 123_456_789 },
      dev: 65024,
      ino: 1234567,
      uid: 1000,
      gid: 1000,
      nlink: 1,
      username: 'postgres',
      groupname: 'postgres',
      flags: 0,
    },
    summary: null,
    object,
    content_type: 'text/plain; charset=utf-8',
    chunks: 1,
  };
}
