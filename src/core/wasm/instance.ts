/** The compiled kernels (*.as), instantiated: what they export, and their memory. */
import { roundUp } from '../units.ts';
import { kernelModuleBase64 } from './module.generated.ts';

/** Addresses and lengths are bytes; see the functions of the same names in *.as. */
export interface KernelExports {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  decodeLz4Block(from: number, fromEnd: number, to: number, toEnd: number, history: number): number;
  measureLz4Block(from: number, fromEnd: number): number;
  xxh32Start(): void;
  xxh32Update(from: number, end: number): void;
  xxh32End(from: number, end: number, totalBytes: number): number;
  xxh32Blocks(from: number, blocks: number, to: number, seed: number): void;
  countBlocks(first: number, blocks: number, counter: number): void;
  xorInto(target: number, other: number, bytes: number): void;
  polyvalStart(key: number): void;
  polyvalDecrypt(ciphertext: number, keystream: number, plain: number, bytes: number): void;
  polyvalBlock(block: number): void;
  blake3Start(flags: number): void;
  blake3Update(from: number, chunks: number): void;
  blake3End(from: number, bytes: number): void;
}

/** The part of the WebAssembly namespace used here: Node's types leave it to the browser's. */
interface WebAssemblyNamespace {
  compile(bytes: Uint8Array): Promise<object>;
  validate(bytes: Uint8Array): boolean;
  instantiate(module: object): Promise<{ readonly exports: unknown }>;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
}
const webAssembly = (globalThis as { readonly WebAssembly?: WebAssemblyNamespace }).WebAssembly;

/** As in layout.as. */
export const addresses = { polyvalState: 0x20000, blake3Key: 0x20040, blake3Digest: 0x20c00, data: 0x22000 } as const;

const PAGE_BYTES = 65536;
/** What the kernels may touch behind a buffer: a vector less a byte, or BLAKE3's last block. */
export const SLACK_BYTES = 64;

const moduleBytes = Buffer.from(kernelModuleBase64, 'base64');
let compiled: Promise<object> | undefined;

/** Whether this machine and this Node can run the kernels: they need 128-bit vector instructions. */
export function supportsKernels(): boolean {
  return webAssembly?.validate(moduleBytes) ?? false;
}

/** One instance with memory of its own; the module is compiled once a thread. */
export async function instantiateKernels(): Promise<KernelInstance> {
  if (webAssembly === undefined) throw new Error('this Node runs without WebAssembly');
  compiled ??= webAssembly.compile(moduleBytes);
  const { exports } = await webAssembly.instantiate(await compiled);
  return new KernelInstance(exports as KernelExports);
}

/** The same in this turn, for one who cannot wait: a millisecond. Undefined where the kernels do not run. */
export function instantiateKernelsNow(): KernelInstance | undefined {
  if (webAssembly === undefined || !supportsKernels()) return undefined;
  const { exports } = new webAssembly.Instance(new webAssembly.Module(moduleBytes));
  return new KernelInstance(exports as KernelExports);
}

export class KernelInstance {
  readonly exports: KernelExports;
  #bytes: Uint8Array;

  constructor(exports: KernelExports) {
    this.exports = exports;
    this.#bytes = new Uint8Array(exports.memory.buffer);
  }

  /** All of the memory, with at least `end` bytes and the slack behind them. Valid until the next call. */
  bytesUpTo(end: number): Uint8Array {
    const missing = end + SLACK_BYTES - this.#bytes.byteLength;
    if (missing > 0) {
      this.exports.memory.grow(roundUp(missing, PAGE_BYTES) / PAGE_BYTES);
      this.#bytes = new Uint8Array(this.exports.memory.buffer);
    }
    return this.#bytes;
  }

  /** Where a view of the memory begins; undefined for any other. */
  addressOf({ buffer, byteOffset }: Uint8Array): number | undefined {
    return buffer === this.#bytes.buffer ? byteOffset : undefined;
  }
}
