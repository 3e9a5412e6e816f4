/**
 * Typed arrays in a sealed file, as they lie in memory: a length (u32), that many bytes of JSON that say what follows,
 * then the columns one behind the other. Read back straight into their arrays.
 */
import { CacheDamagedError } from './errors.ts';
import type { SealedReader } from './sealed-reader.ts';
import type { SealedWriter } from './sealed-writer.ts';

const kinds = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i32: Int32Array, f64: Float64Array } as const;
type Kind = keyof typeof kinds;
export type Column = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

interface Description {
  /** Whatever plain values belong to the columns. */
  readonly values: unknown;
  readonly columns: readonly (readonly [name: string, kind: Kind, length: number])[];
}

const LENGTH_BYTES = 4;

/** Columns read back, by the names they were written under. */
export interface ReadColumns {
  readonly values: unknown;
  column<K extends Kind>(name: string, kind: K): InstanceType<(typeof kinds)[K]>;
}

/** Appends columns, and `values` as JSON. */
export async function writeColumns(
  writer: Pick<SealedWriter, 'write'>,
  { values, columns }: { values: unknown; columns: Readonly<Record<string, Column>> },
): Promise<void> {
  const listed = Object.entries(columns).map(([name, column]) => [name, kindOf(column), column.length] as const);
  const description: Description = { values, columns: listed };
  const encoded = Buffer.from(JSON.stringify(description));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(encoded.byteLength);
  await writer.write(length);
  await writer.write(encoded);
  for (const column of Object.values(columns)) await writer.write(bytesOf(column));
}

/** All columns of a file, or of a part of it. Rejects with CacheDamagedError. */
export async function readColumns(
  reader: SealedReader,
  { start = 0, end = reader.plainBytes }: { start?: number; end?: number } = {},
): Promise<ReadColumns> {
  const length = new Uint8Array(LENGTH_BYTES);
  if (start + LENGTH_BYTES > end) throw new CacheDamagedError('it holds no columns');
  await reader.read(start, length);
  const encodedBytes = Buffer.from(length).readUInt32LE();
  let at = start + LENGTH_BYTES;
  if (at + encodedBytes > end) throw new CacheDamagedError('its columns are not described');
  const encoded = new Uint8Array(encodedBytes);
  await reader.read(at, encoded);
  const { values, columns } = parseDescription(encoded);
  at += encodedBytes;
  const columnsEnd = columns.reduce((sum, [, kind, count]) => sum + count * kinds[kind].BYTES_PER_ELEMENT, at);
  if (columnsEnd !== end) throw new CacheDamagedError('its columns have other lengths than it says');
  const read = new Map<string, Column>();
  for (const [name, kind, count] of columns) {
    const column = new kinds[kind](count);
    await reader.read(at, bytesOf(column));
    at += column.byteLength;
    read.set(name, column);
  }
  return {
    values,
    column<K extends Kind>(name: string, kind: K) {
      const column = read.get(name);
      if (column === undefined || kindOf(column) !== kind) throw new CacheDamagedError(`it has no column ${name}`);
      return column as InstanceType<(typeof kinds)[K]>;
    },
  };
}

function parseDescription(encoded: Uint8Array): Description {
  try {
    const description = JSON.parse(Buffer.from(encoded).toString()) as Partial<Description>;
    if (Array.isArray(description.columns)) return description as Description;
  } catch (cause) {
    throw new CacheDamagedError('its columns are not described', { cause });
  }
  throw new CacheDamagedError('its columns are not described');
}

function kindOf(column: Column): Kind {
  return (Object.keys(kinds) as Kind[]).find((kind) => column instanceof kinds[kind])!;
}

function bytesOf(column: Column): Uint8Array {
  return new Uint8Array(column.buffer, column.byteOffset, column.byteLength);
}
