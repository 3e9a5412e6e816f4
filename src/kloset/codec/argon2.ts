/**
 * Argon2id in WebAssembly (RFC 9106, version 0x13). The reference implementation, which @phi-ag/argon2 compiles with 128-bit
 * vectors, takes a quarter less time than hash-wasm; that one does it where this cannot. Of the package only its
 * WebAssembly is used: its JavaScript takes text, and a passphrase is bytes.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { KiB, MiB } from '../../core/units.ts';

export interface Argon2Cost {
  /** Passes over the memory. */
  readonly time: number;
  readonly memoryKiB: number;
  readonly threads: number;
  readonly keyBytes: number;
}

/** What argon2.h of the reference implementation declares; addresses and lengths are bytes. */
interface Argon2Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  _initialize(): void;
  malloc(bytes: number): number;
  argon2_hash(
    time: number,
    memoryKiB: number,
    threads: number,
    passphrase: number,
    passphraseBytes: number,
    salt: number,
    saltBytes: number,
    key: number,
    keyBytes: number,
    encoded: number,
    encodedBytes: number,
    type: number,
    version: number,
  ): number;
  argon2_error_message(code: number): number;
}

/** Node's types leave it to the browser's. */
declare const WebAssembly: {
  validate(bytes: Uint8Array): boolean;
  instantiate(bytes: Uint8Array): Promise<{ readonly instance: { readonly exports: unknown } }>;
};

/** Read with this module, which is loaded when a key is derived: a package that is not there is no want of memory. */
const reference = readFileSync(createRequire(import.meta.url).resolve('@phi-ag/argon2/argon2.wasm'));

const ARGON2ID = 2;
const VERSION_13 = 0x13;
/** Nowhere, and no bytes: the key is all that is asked for. */
const NOT_ENCODED = [0, 0] as const;
/** Its memory ends at 2 GiB; the rest is for itself. */
const MEMORY_KIB_MAX = 2 * 1024 * 1024 - (64 * MiB) / KiB;

/** The key. Keeps this thread busy for seconds. Rejects if there is not so much memory. */
export async function argon2id(passphrase: Uint8Array, salt: Uint8Array, cost: Argon2Cost): Promise<Uint8Array> {
  const isPossible = cost.memoryKiB <= MEMORY_KIB_MAX && WebAssembly.validate(reference);
  return isPossible ? byReference(passphrase, salt, cost) : byHashWasm(passphrase, salt, cost);
}

async function byReference(
  passphrase: Uint8Array,
  salt: Uint8Array,
  { time, memoryKiB, threads, keyBytes }: Argon2Cost,
): Promise<Uint8Array> {
  const { instance } = await WebAssembly.instantiate(reference);
  const argon2 = instance.exports as Argon2Exports;
  argon2._initialize();
  // The memory is another after each allocation that made it grow.
  const bytesAt = (address: number, length: number) => new Uint8Array(argon2.memory.buffer, address, length);
  const put = (bytes: Uint8Array): [address: number, length: number] => {
    const address = argon2.malloc(bytes.byteLength);
    bytesAt(address, bytes.byteLength).set(bytes);
    return [address, bytes.byteLength];
  };
  const [password, salting] = [put(passphrase), put(salt)];
  const key = argon2.malloc(keyBytes);
  const how = [...NOT_ENCODED, ARGON2ID, VERSION_13] as const;
  const code = argon2.argon2_hash(time, memoryKiB, threads, ...password, ...salting, key, keyBytes, ...how);
  if (code !== 0) throw new Error(textAt(argon2, argon2.argon2_error_message(code)));
  return bytesAt(key, keyBytes).slice();
}

/** As `argon2id`, by hash-wasm: without vectors, and with up to 4 GiB. */
export async function byHashWasm(passphrase: Uint8Array, salt: Uint8Array, cost: Argon2Cost): Promise<Uint8Array> {
  const { argon2id: derive } = await import('hash-wasm');
  const { time: iterations, memoryKiB: memorySize, threads: parallelism, keyBytes: hashLength } = cost;
  const options = { iterations, memorySize, parallelism, hashLength, outputType: 'binary' } as const;
  return derive({ password: passphrase, salt, ...options });
}

/** A string of C. */
function textAt({ memory }: Argon2Exports, address: number): string {
  const bytes = Buffer.from(memory.buffer, address);
  return bytes.toString('latin1', 0, bytes.indexOf(0));
}
