/**
 * A msgpack decoder for Kloset's blobs (kloset-format section 9). Own code because the usual packages lose what matters
 * here: names that are not UTF-8, nanoseconds, and integers above 2 ** 53.
 */
import { CorruptStoreError } from '../core/errors.ts';

/** Ext type -1: seconds since 1970, floored, and nanoseconds upward from it. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/**
 * `str` and `bin` are both byte views into the input. Integers are numbers where they are safe, else bigints.
 * Unknown extension types decode to undefined.
 */
export type MsgpackValue =
  | undefined
  | boolean
  | number
  | bigint
  | Uint8Array
  | Timestamp
  | readonly MsgpackValue[]
  | MsgpackMap;
export type MsgpackMap = ReadonlyMap<string, MsgpackValue>;

/** Nesting that no Kloset structure comes near; keeps hostile input from exhausting the stack. */
const DEPTH_MAX = 32;
/** Maps and arrays in one value: some 300 bytes of memory each, though an empty one takes a byte of input. The largest object has one a chunk, about 670,000. */
const CONTAINERS_MAX = 1 << 20;
/** Elements of all maps and arrays together, 8 bytes of memory or more each. The largest object has some 8 million. */
const ELEMENTS_MAX = 1 << 24;
const TIMESTAMP_EXTENSION = -1;

/** Decodes the one value that fills `data`. Throws CorruptStoreError on anything malformed, and on trailing bytes. */
export function decodeMsgpack(data: Uint8Array): MsgpackValue {
  const reader = new Reader(data);
  const value = reader.value(0);
  if (reader.at !== data.byteLength) {
    throw new CorruptStoreError(`msgpack: ${data.byteLength - reader.at} bytes follow the value`);
  }
  return value;
}

/** Keys of maps met before: the last one of each slot. */
const KEY_SLOTS = 1024;
const knownKeys: (string | undefined)[] = new Array(KEY_SLOTS).fill(undefined);

function slotOf(data: Uint8Array, at: number, length: number): number {
  return (length * 131 + data[at]! * 31 + data[at + length - 1]! * 7) % KEY_SLOTS;
}

class Reader {
  at = 0;
  #containers = 0;
  #elements = 0;
  readonly data: Buffer;
  readonly view: DataView;

  constructor(data: Uint8Array) {
    this.data = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }

  /** Advances over `length` bytes and returns where they begin. */
  take(length: number): number {
    const start = this.at;
    if (length > this.data.byteLength - start) throw new CorruptStoreError('msgpack: the value is cut short');
    this.at = start + length;
    return start;
  }

  value(depth: number): MsgpackValue {
    if (depth > DEPTH_MAX) throw new CorruptStoreError(`msgpack: nested deeper than ${DEPTH_MAX}`);
    const tag = this.data[this.take(1)]!;
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.map(tag & 0x0f, depth);
    if (tag < 0xa0) return this.array(tag & 0x0f, depth);
    if (tag < 0xc0) return this.bytes(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0:
        return undefined;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xd9:
        return this.bytes(this.u8());
      case 0xc5:
      case 0xda:
        return this.bytes(this.u16());
      case 0xc6:
      case 0xdb:
        return this.bytes(this.u32());
      case 0xc7:
        return this.extension(this.u8());
      case 0xc8:
        return this.extension(this.u16());
      case 0xc9:
        return this.extension(this.u32());
      case 0xca:
        return this.view.getFloat32(this.take(4));
      case 0xcb:
        return this.view.getFloat64(this.take(8));
      case 0xcc:
        return this.u8();
      case 0xcd:
        return this.u16();
      case 0xce:
        return this.u32();
      case 0xcf:
        return safeInteger(this.view.getBigUint64(this.take(8)));
      case 0xd0:
        return this.view.getInt8(this.take(1));
      case 0xd1:
        return this.view.getInt16(this.take(2));
      case 0xd2:
        return this.view.getInt32(this.take(4));
      case 0xd3:
        return safeInteger(this.view.getBigInt64(this.take(8)));
      case 0xdc:
        return this.array(this.u16(), depth);
      case 0xdd:
        return this.array(this.u32(), depth);
      case 0xde:
        return this.map(this.u16(), depth);
      case 0xdf:
        return this.map(this.u32(), depth);
      case 0xc1:
        throw new CorruptStoreError('msgpack: 0xc1 is not a type');
      default: // 0xd4 .. 0xd8: extensions of 1, 2, 4, 8, 16 bytes.
        return this.extension(1 << (tag - 0xd4));
    }
  }

  u8(): number {
    return this.data[this.take(1)]!;
  }

  u16(): number {
    return this.view.getUint16(this.take(2));
  }

  u32(): number {
    return this.view.getUint32(this.take(4));
  }

  bytes(length: number): Uint8Array {
    const start = this.take(length);
    return this.data.subarray(start, this.at);
  }

  array(count: number, depth: number): readonly MsgpackValue[] {
    this.enterContainer(count);
    const values: MsgpackValue[] = [];
    for (let i = 0; i < count; i++) values.push(this.value(depth + 1));
    return values;
  }

  map(count: number, depth: number): MsgpackMap {
    this.enterContainer(count * 2);
    const values = new Map<string, MsgpackValue>();
    for (let i = 0; i < count; i++) {
      const key = this.knownKey() ?? this.key(depth + 1);
      values.set(key, this.value(depth + 1));
    }
    return values;
  }

  key(depth: number): string {
    const start = this.at;
    const key = this.value(depth);
    if (!(key instanceof Uint8Array)) throw new CorruptStoreError('msgpack: a map key is not a string');
    const text = (key as Buffer).toString('latin1');
    const tag = this.data[start]!;
    if (tag >= 0xa0 && tag < 0xc0) knownKeys[slotOf(this.data, start + 1, key.byteLength)] = text;
    return text;
  }

  /**
   * The key here if one of the same length, beginning and end was met before, and is this one: a snapshot's entries have
   * the same two dozen keys millions of times, and making their strings would be a third of reading them.
   */
  knownKey(): string | undefined {
    const { data, at } = this;
    const tag = data[at]!;
    if (tag < 0xa0 || tag >= 0xc0) return undefined; // Cut short (undefined), or in a long form: rare.
    const length = tag & 0x1f;
    if (length === 0 || at + 1 + length > data.byteLength) return undefined;
    const known = knownKeys[slotOf(data, at + 1, length)];
    if (known === undefined || known.length !== length) return undefined;
    for (let i = 0; i < length; i++) if (known.charCodeAt(i) !== data[at + 1 + i]) return undefined;
    this.at = at + 1 + length;
    return known;
  }

  /** Every element takes a byte at least: a count beyond that is refused before anything is allocated. */
  enterContainer(elements: number): void {
    if (elements > this.data.byteLength - this.at) throw new CorruptStoreError('msgpack: a count exceeds the input');
    this.#containers++;
    this.#elements += elements;
    if (this.#containers > CONTAINERS_MAX || this.#elements > ELEMENTS_MAX) {
      throw new CorruptStoreError('msgpack: more maps, arrays or elements than any Kloset value has');
    }
  }

  extension(length: number): Timestamp | undefined {
    const type = this.view.getInt8(this.take(1));
    const start = this.take(length);
    if (type !== TIMESTAMP_EXTENSION) return undefined;
    switch (length) {
      case 4:
        return { seconds: this.view.getUint32(start), nanoseconds: 0 };
      case 8: {
        const high = this.view.getUint32(start); // 30 bits of nanoseconds, then 34 bits of seconds.
        return timestamp((high & 3) * 2 ** 32 + this.view.getUint32(start + 4), high >>> 2);
      }
      case 12:
        return timestamp(Number(this.view.getBigInt64(start + 4)), this.view.getUint32(start));
      default:
        throw new CorruptStoreError(`msgpack: a timestamp of ${length} bytes`);
    }
  }
}

function timestamp(seconds: number, nanoseconds: number): Timestamp {
  if (nanoseconds > 999_999_999) throw new CorruptStoreError(`msgpack: a timestamp with ${nanoseconds} nanoseconds`);
  return { seconds, nanoseconds };
}

function safeInteger(value: bigint): number | bigint {
  const asNumber = Number(value);
  return Number.isSafeInteger(asNumber) ? asNumber : value;
}
