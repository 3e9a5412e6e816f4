/** What options carry and what answers them: parsing and encoding, no decisions. */
import { struct, u16, u32 } from '../core/struct.ts';
import { NBD_REP_MAGIC, NBD_STRING_BYTES_MAX, nbdOptionReply, optionReplies } from './protocol.ts';

const be16 = struct('be16', 'be', 2, [['value', u16]]);
const be32 = struct('be32', 'be', 4, [['value', u32]]);
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoQuery {
  readonly name: string;
  /** NBD_INFO_* asked for; may hold values nobody knows. */
  readonly infos: ReadonlySet<number>;
}

/** Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface ContextQuery {
  readonly name: string;
  readonly queries: readonly string[];
}

/** A string of the protocol: UTF-8 without NUL, at most 4096 bytes (spec, "Conventions"); undefined for anything else. */
export function parseString(data: Uint8Array): string | undefined {
  if (data.byteLength > NBD_STRING_BYTES_MAX || data.includes(0)) return undefined;
  try {
    return utf8.decode(data);
  } catch (error) {
    if (error instanceof TypeError) return undefined; // The decoder's way to say: not UTF-8.
    throw error;
  }
}

/** Undefined if the data is not exactly: name length, name, count, that many 16-bit numbers. */
export function parseInfoQuery(data: Uint8Array): InfoQuery | undefined {
  const reader = new FieldReader(data);
  const name = reader.string();
  const count = reader.u16();
  if (name === undefined || count === undefined || reader.remaining !== 2 * count) return undefined;
  const infos = new Set<number>();
  for (let i = 0; i < count; i++) infos.add(reader.u16()!);
  return { name, infos };
}

/** Undefined if the data is not exactly: name length, name, count, that many queries, each a length and a string. */
export function parseContextQuery(data: Uint8Array): ContextQuery | undefined {
  const reader = new FieldReader(data);
  const name = reader.string();
  const count = reader.u32();
  // A query takes at least the 4 bytes of its length: `count` is checked before anything is done so many times.
  if (name === undefined || count === undefined || count > reader.remaining / 4) return undefined;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = reader.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return reader.remaining === 0 ? { name, queries } : undefined;
}

/** One reply to an option, header and data. */
export function encodeReply(option: number, reply: number, ...data: readonly Uint8Array[]): Uint8Array {
  const length = data.reduce((sum, part) => sum + part.byteLength, 0);
  return Buffer.concat([nbdOptionReply.encode({ magic: NBD_REP_MAGIC, option, reply, length }), ...data]);
}

/** An error reply with a line for people. */
export function encodeErrorReply(option: number, reply: number, message: string): Uint8Array {
  return encodeReply(option, reply, limitedString(message));
}

/** NBD_REP_SERVER: a name, and a description behind it. */
export function encodeServerReply(option: number, name: string, description: string): Uint8Array {
  const nameBytes = Buffer.from(name);
  return encodeReply(
    option,
    optionReplies.NBD_REP_SERVER,
    be32.encode({ value: nameBytes.length }),
    nameBytes,
    limitedString(description),
  );
}

/** NBD_REP_META_CONTEXT. */
export function encodeContextReply(option: number, id: number, name: string): Uint8Array {
  return encodeReply(option, optionReplies.NBD_REP_META_CONTEXT, be32.encode({ value: id }), Buffer.from(name));
}

/** NBD_REP_INFO with a string: NBD_INFO_NAME or NBD_INFO_DESCRIPTION. */
export function encodeInfoString(option: number, info: number, text: string): Uint8Array {
  return encodeReply(option, optionReplies.NBD_REP_INFO, be16.encode({ value: info }), limitedString(text));
}

/** UTF-8, cut to the length a string may have, at a character's edge. */
export function limitedString(text: string, bytesMax: number = NBD_STRING_BYTES_MAX): Uint8Array {
  const encoded = Buffer.from(text.replaceAll('\0', ' '));
  if (encoded.length <= bytesMax) return encoded;
  let end = bytesMax;
  while (end > 0 && (encoded[end]! & 0xc0) === 0x80) end--; // 10xxxxxx: inside a character.
  return encoded.subarray(0, end);
}

/** Reads fields one after another; undefined once the data does not hold what is asked for. */
class FieldReader {
  readonly #data: Uint8Array;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  get remaining(): number {
    return this.#data.byteLength - this.#at;
  }

  u16(): number | undefined {
    if (this.remaining < 2) return undefined;
    this.#at += 2;
    return be16.read(this.#data, this.#at - 2).value;
  }

  u32(): number | undefined {
    if (this.remaining < 4) return undefined;
    this.#at += 4;
    return be32.read(this.#data, this.#at - 4).value;
  }

  /** A 32-bit length and a string of it. */
  string(): string | undefined {
    const length = this.u32();
    if (length === undefined || length > this.remaining) return undefined;
    this.#at += length;
    return parseString(this.#data.subarray(this.#at - length, this.#at));
  }
}
