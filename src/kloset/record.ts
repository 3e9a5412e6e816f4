import { CorruptStoreError } from '../core/errors.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { decodeMsgpack, type MsgpackMap, type MsgpackValue, type Timestamp } from './msgpack.ts';

const NO_BYTES = new Uint8Array(0);
const NO_MAC = new Uint8Array(MAC_BYTES);

/**
 * One msgpack map with typed access to its fields. Rules of kloset-format section 1: unknown keys are ignored, a missing
 * key (or nil) means zero value; a value of another type is damage and throws CorruptStoreError naming what and field.
 */
export class MsgpackRecord {
  readonly what: string;
  readonly #fields: MsgpackMap;

  constructor(fields: MsgpackValue, what: string) {
    if (!(fields instanceof Map)) throw new CorruptStoreError(`${what} is not a msgpack map`);
    this.#fields = fields;
    this.what = what;
  }

  /** Decodes bytes that hold exactly one map. `what` names it in errors. */
  static decode(data: Uint8Array, what: string): MsgpackRecord {
    return new MsgpackRecord(decodeMsgpack(data), what);
  }

  has(key: string): boolean {
    return this.#fields.get(key) !== undefined;
  }

  /** A str or bin as raw bytes: a view into the decoded buffer. */
  bytes(key: string): Uint8Array {
    const value = this.#fields.get(key);
    if (value === undefined) return NO_BYTES;
    if (value instanceof Uint8Array) return value;
    throw this.wrong(key, 'bytes');
  }

  /** A str that is text by nature (algorithm names, tags); invalid UTF-8 becomes U+FFFD. */
  text(key: string): string {
    return Buffer.from(this.bytes(key)).toString('utf8');
  }

  /** 32 bytes; all zero when absent. */
  mac(key: string): Uint8Array {
    const value = this.bytes(key);
    if (value.byteLength === 0) return NO_MAC;
    if (value.byteLength !== MAC_BYTES) throw this.wrong(key, 'a MAC');
    return value;
  }

  /** An integer that fits a number exactly. */
  integer(key: string): number {
    const value = this.#fields.get(key);
    if (value === undefined) return 0;
    if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
    throw this.wrong(key, 'an integer below 2^53');
  }

  /** An integer of any size, as text: for identities that are only compared. */
  integerText(key: string): string {
    const value = this.#fields.get(key);
    if (value === undefined) return '0';
    if (typeof value === 'bigint' || typeof value === 'number') return String(value);
    throw this.wrong(key, 'an integer');
  }

  /** An integer as a number, rounded above 2 ** 53: for owners, whose values up there cannot be shown anyway. */
  roundedInteger(key: string): number {
    return Number(this.integerText(key));
  }

  time(key: string): Timestamp {
    const value = this.#fields.get(key);
    if (value === undefined) return { seconds: 0, nanoseconds: 0 };
    if (typeof value === 'object' && 'nanoseconds' in value) return value;
    throw this.wrong(key, 'a timestamp');
  }

  record(key: string): MsgpackRecord {
    return new MsgpackRecord(this.#fields.get(key) ?? new Map(), `${this.what}.${key}`);
  }

  array(key: string): readonly MsgpackValue[] {
    const value = this.#fields.get(key);
    if (value === undefined) return [];
    if (Array.isArray(value)) return value;
    throw this.wrong(key, 'an array');
  }

  records(key: string): MsgpackRecord[] {
    return this.array(key).map((value, i) => new MsgpackRecord(value, `${this.what}.${key}[${i}]`));
  }

  byteStrings(key: string): Uint8Array[] {
    return this.array(key).map((value) => {
      if (value instanceof Uint8Array) return value;
      throw this.wrong(key, 'an array of strings');
    });
  }

  macs(key: string): Uint8Array[] {
    return this.byteStrings(key).map((mac) => {
      if (mac.byteLength === MAC_BYTES) return mac;
      throw this.wrong(key, 'an array of MACs');
    });
  }

  private wrong(key: string, wanted: string): CorruptStoreError {
    return new CorruptStoreError(`${this.what}: field ${key} is not ${wanted}`);
  }
}
