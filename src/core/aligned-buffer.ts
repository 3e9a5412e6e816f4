import { roundUp } from './units.ts';

/** A multiple of the blocks of every disk in use. */
const BLOCK_BYTES = 4096;
const WASM_PAGE_BYTES = 65536;

/** Node's types leave WebAssembly to the browser's. */
declare const WebAssembly: {
  readonly Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer };
};

/** Memory that begins at a page, as O_DIRECT asks for and Node's own buffers do not. Used again, and grown as needed. */
export class AlignedBuffer {
  #bytes = new Uint8Array(0);

  /** `length` bytes, rounded up to whole blocks, of any content. Valid until the next call. */
  take(length: number): Uint8Array {
    const bytes = roundUp(length, BLOCK_BYTES);
    if (bytes > this.#bytes.byteLength) {
      const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(bytes / WASM_PAGE_BYTES) });
      this.#bytes = new Uint8Array(buffer);
    }
    return this.#bytes.subarray(0, bytes);
  }
}
