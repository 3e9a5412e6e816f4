/**
 * Fixed binary layouts, declared once as data: type, reader, writer and field offsets all come from one table.
 *
 * const nbdRequest = struct('nbd_request', 'be', 28, [['magic', u32], ['cookie', bytes(8)], …]);
 */
import { AssertionError, assert, CorruptStoreError } from './errors.ts';

type Endian = 'le' | 'be';

/** How one field is stored. `T` is what JavaScript sees. */
export interface FieldType<T> {
  readonly sizeBytes: number;
  read(view: DataView, at: number, littleEndian: boolean): T;
  write(view: DataView, at: number, value: T, littleEndian: boolean): void;
}

export const u8: FieldType<number> = {
  sizeBytes: 1,
  read: (view, at) => view.getUint8(at),
  write: (view, at, value) => view.setUint8(at, value),
};
export const u16: FieldType<number> = {
  sizeBytes: 2,
  read: (view, at, le) => view.getUint16(at, le),
  write: (view, at, value, le) => view.setUint16(at, value, le),
};
export const u32: FieldType<number> = {
  sizeBytes: 4,
  read: (view, at, le) => view.getUint32(at, le),
  write: (view, at, value, le) => view.setUint32(at, value, le),
};
/** 64 bits unsigned as `number`: a stored value above 2 ** 53 - 1 is refused, not rounded. */
export const u64: FieldType<number> = {
  sizeBytes: 8,
  read(view, at, le) {
    const high = view.getUint32(le ? at + 4 : at, le);
    const low = view.getUint32(le ? at : at + 4, le);
    if (high > 0x1fffff) throw new CorruptStoreError('a 64-bit field holds a value above 2^53 - 1');
    return high * 2 ** 32 + low;
  },
  write(view, at, value, le) {
    assert(Number.isSafeInteger(value) && value >= 0, 'a 64-bit field takes integers from 0 to 2^53 - 1');
    view.setUint32(le ? at + 4 : at, Math.floor(value / 2 ** 32), le);
    view.setUint32(le ? at : at + 4, value % 2 ** 32, le);
  },
};
/** 64 bits as bigint. */
export const u64big: FieldType<bigint> = {
  sizeBytes: 8,
  read: (view, at, le) => view.getBigUint64(at, le),
  write: (view, at, value, le) => view.setBigUint64(at, value, le),
};
export const i64big: FieldType<bigint> = {
  sizeBytes: 8,
  read: (view, at, le) => view.getBigInt64(at, le),
  write: (view, at, value, le) => view.setBigInt64(at, value, le),
};
/** `length` raw bytes. Reading gives a view into the source, not a copy; a shorter value is padded with zeroes. */
export function bytes(length: number): FieldType<Uint8Array> {
  return {
    sizeBytes: length,
    read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, length),
    write(view, at, value) {
      assert(value.byteLength <= length, `a field of ${length} bytes takes no ${value.byteLength}`);
      const target = new Uint8Array(view.buffer, view.byteOffset + at, length);
      target.fill(0);
      target.set(value);
    },
  };
}

// biome-ignore lint/suspicious/noExplicitAny: a table mixes fields of every value type; Fields<T> recovers each one's.
type AnyField = FieldType<any>;
type FieldTable = readonly (readonly [name: string, type: AnyField, place?: { readonly at: number }])[];
type ValueOf<F> = F extends FieldType<infer T> ? T : never;
/** The object type of a table: one property a field. */
export type Fields<T extends FieldTable> = { [Row in T[number] as Row[0]]: ValueOf<Row[1]> };

export interface Struct<T extends FieldTable> {
  readonly name: string;
  readonly sizeBytes: number;
  /** Byte offset of a field. */
  offsetOf(field: T[number][0]): number;
  /** Decodes the `sizeBytes` at `at`. Throws CorruptStoreError if `source` is too short. */
  read(source: Uint8Array, at?: number): Fields<T>;
  /** Encodes over `target` at `at`; fields left out keep the bytes that are there. */
  write(target: Uint8Array, values: Partial<Fields<T>>, at?: number): void;
  /** A fresh, zero-padded buffer. */
  encode(values: Partial<Fields<T>>): Uint8Array;
}

/**
 * Declares a layout. Fields follow each other without gaps; `{ at }` pins one to an offset at or behind the end of the
 * one before it, and the bytes skipped are padding. The declared total size is asserted when the module loads.
 */
export function struct<const T extends FieldTable>(
  name: string,
  endian: Endian,
  sizeBytes: number,
  table: T,
): Struct<T> {
  const littleEndian = endian === 'le';
  const places = new Map<string, { at: number; type: AnyField }>();
  let next = 0;
  for (const [field, type, place] of table) {
    const at = place?.at ?? next;
    assert(at >= next, `${name}.${field} overlaps the field before it`);
    assert(!places.has(field), `${name}.${field} is declared twice`);
    places.set(field, { at, type });
    next = at + type.sizeBytes;
  }
  assert(next <= sizeBytes, `${name} has ${next} bytes of fields, declared are ${sizeBytes}`);

  const viewOf = (data: Uint8Array, at: number) => {
    if (at + sizeBytes > data.byteLength) {
      throw new CorruptStoreError(`${name} needs ${sizeBytes} bytes, ${data.byteLength - at} are there`);
    }
    return new DataView(data.buffer, data.byteOffset + at, sizeBytes);
  };
  const write = (target: Uint8Array, values: Partial<Fields<T>>, at = 0) => {
    const view = viewOf(target, at);
    for (const field of Object.keys(values)) {
      const place = places.get(field);
      // Not `assert`: records are written by the thousand, and its message would be made for every field.
      if (place === undefined) throw new AssertionError(`${name} has no field ${field}`);
      place.type.write(view, place.at, values[field as keyof typeof values], littleEndian);
    }
  };
  return {
    name,
    sizeBytes,
    offsetOf(field) {
      const place = places.get(field);
      assert(place, `${name} has no field ${field}`);
      return place.at;
    },
    read(source, at = 0) {
      const view = viewOf(source, at);
      const values: Record<string, unknown> = {};
      for (const [field, { at: fieldAt, type }] of places) values[field] = type.read(view, fieldAt, littleEndian);
      return values as Fields<T>;
    },
    write,
    encode(values) {
      const target = new Uint8Array(sizeBytes);
      write(target, values);
      return target;
    },
  };
}
