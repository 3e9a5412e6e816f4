/**
 * Memory that begins at a page: what O_DIRECT, a write past the page cache, asks for. Node's own buffers do not, and only
 * WebAssembly's memory does, of which a process can have no more than some dozen pieces.
 */
import { roundUp } from './units.ts';

/** A multiple of the blocks of every disk in use. */
export const ALIGNMENT_BYTES = 4096;
const WASM_PAGE_BYTES = 65536;

/** Node's types leave WebAssembly to the browser's. */
declare const WebAssembly: {
  readonly Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer };
};

const alignedMemory = new WeakSet<ArrayBufferLike>();

function allocate(bytes: number): ArrayBuffer {
  const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(bytes / WASM_PAGE_BYTES) });
  alignedMemory.add(buffer);
  return buffer;
}

/** Whether a view is known to begin and end at blocks of memory. */
export function isAligned({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  return byteOffset % ALIGNMENT_BYTES === 0 && byteLength % ALIGNMENT_BYTES === 0 && alignedMemory.has(buffer);
}

/** One buffer, used again, and grown as needed. */
export class AlignedBuffer {
  #bytes = new Uint8Array(0);

  /** `length` bytes, rounded up to whole blocks, of any content. Valid until the next call. */
  take(length: number): Uint8Array {
    const bytes = roundUp(length, ALIGNMENT_BYTES);
    if (bytes > this.#bytes.byteLength) this.#bytes = new Uint8Array(allocate(bytes));
    return this.#bytes.subarray(0, bytes);
  }
}

/** Many buffers in one piece of memory, which takes none before they are written to. Nothing is given back. */
export class AlignedArena {
  readonly #bytesMax: number;
  #memory: ArrayBuffer | undefined;
  #usedBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** `length` bytes, rounded up to whole blocks; undefined if so many are not left. */
  take(length: number): Buffer | undefined {
    const bytes = roundUp(length, ALIGNMENT_BYTES);
    if (this.#usedBytes + bytes > this.#bytesMax) return undefined;
    this.#memory ??= allocate(this.#bytesMax);
    this.#usedBytes += bytes;
    return Buffer.from(this.#memory, this.#usedBytes - bytes, bytes);
  }
}
