/**
 * A chunk's file in the form in which the store has it: compressed, and encrypted where the store is.
 *
 *   0        stored bytes
 *   ...      zeroes to the end of the last block
 *   end - 4  number of stored bytes, u32 le
 *
 * Nothing here is authenticated: whoever decodes the stored bytes compares the MAC of what they become, as if they came from
 * the store.
 */
import type { FileHandle } from 'node:fs/promises';
import { copyBytes } from '../core/copy-bytes.ts';
import { CacheDamagedError } from './errors.ts';
import { readFully } from './sealed-reader.ts';

const LENGTH_BYTES = 4;

/** What the file takes, before that is rounded up to whole blocks. */
export function storedFileLength(storedBytes: number): number {
  return storedBytes + LENGTH_BYTES;
}

/** Makes all of the file in `into`, which has whole blocks. */
export function packStored(into: Uint8Array, stored: Uint8Array): void {
  copyBytes(stored, into);
  into.fill(0, stored.byteLength);
  lengthIn(into).setUint32(0, stored.byteLength, true);
}

/** Memory for what is read, and whom it is given back to if that fails. */
export interface StoredMemory {
  take(length: number): Uint8Array;
  give(bytes: Uint8Array): void;
}

export interface ReadStoredOptions {
  /** More stored bytes than the chunk can have are none of it. */
  readonly bytesMax: number;
  readonly memory: StoredMemory;
}

/** The stored bytes in memory taken from `memory`. Rejects with CacheDamagedError if these are not as they were written, or more than `bytesMax`. */
export async function readStored(file: FileHandle, { bytesMax, memory }: ReadStoredOptions): Promise<Uint8Array> {
  const { size } = await file.stat();
  const tail = new Uint8Array(LENGTH_BYTES);
  if (size < LENGTH_BYTES) throw new CacheDamagedError('it is cut short');
  await readFully(file, tail, size - LENGTH_BYTES);
  const length = lengthIn(tail).getUint32(0, true);
  if (length > Math.min(bytesMax, size - LENGTH_BYTES)) throw new CacheDamagedError('it is not what was written');
  const stored = memory.take(length);
  try {
    await readFully(file, stored, 0);
    return stored;
  } catch (error) {
    memory.give(stored);
    throw error;
  }
}

function lengthIn({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset + byteLength - LENGTH_BYTES, LENGTH_BYTES);
}
