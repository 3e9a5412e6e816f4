import type { Timestamp } from '../../src/kloset/msgpack.ts';

/** What the encoder takes; strings may also come as bytes in `Str`, since names need not be UTF-8. */
export type Encodable =
  | null
  | undefined
  | boolean
  | number
  | bigint
  | string
  | Str
  | Uint8Array
  | Timestamp
  | readonly Encodable[]
  | { readonly [key: string]: Encodable };

/** A `str` of any bytes; a Uint8Array alone becomes `bin`. */
export class Str {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array | string) {
    this.bytes = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
  }
}

/** A small msgpack encoder, as far as Kloset stores need it: 32-bit lengths, 64-bit integers, timestamps of 12 bytes. */
export function encodeMsgpack(value: Encodable): Buffer {
  if (value === null || value === undefined) return Buffer.from([0xc0]);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === 'number') return Number.isSafeInteger(value) ? integer(BigInt(value)) : float(value);
  if (typeof value === 'bigint') return integer(value);
  if (typeof value === 'string') return sized(0xdb, Buffer.from(value));
  if (value instanceof Str) return sized(0xdb, value.bytes);
  if (value instanceof Uint8Array) return sized(0xc6, value);
  if (isList(value)) return Buffer.concat([head(0xdd, value.length), ...value.map(encodeMsgpack)]);
  if (isTimestamp(value)) return timestamp(value);
  const fields = Object.entries(value);
  const parts = fields.flatMap(([key, field]) => [encodeMsgpack(key), encodeMsgpack(field)]);
  return Buffer.concat([head(0xdf, fields.length), ...parts]);
}

function isList(value: object): value is readonly Encodable[] {
  return Array.isArray(value);
}
function isTimestamp(value: object): value is Timestamp {
  return 'seconds' in value && 'nanoseconds' in value;
}
function head(tag: number, count: number): Buffer {
  const buffer = Buffer.alloc(5);
  buffer[0] = tag;
  buffer.writeUInt32BE(count, 1);
  return buffer;
}
function sized(tag: number, bytes: Uint8Array): Buffer {
  return Buffer.concat([head(tag, bytes.byteLength), bytes]);
}
function integer(value: bigint): Buffer {
  const buffer = Buffer.alloc(9);
  buffer[0] = value < 0n ? 0xd3 : 0xcf;
  if (value < 0n) buffer.writeBigInt64BE(value, 1);
  else buffer.writeBigUInt64BE(value, 1);
  return buffer;
}
function float(value: number): Buffer {
  const buffer = Buffer.alloc(9);
  buffer[0] = 0xcb;
  buffer.writeDoubleBE(value, 1);
  return buffer;
}
function timestamp({ seconds, nanoseconds }: Timestamp): Buffer {
  const buffer = Buffer.alloc(15);
  buffer[0] = 0xc7;
  buffer[1] = 12;
  buffer.writeInt8(-1, 2);
  buffer.writeUInt32BE(nanoseconds, 3);
  buffer.writeBigInt64BE(BigInt(seconds), 7);
  return buffer;
}
