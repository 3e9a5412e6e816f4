import type { BlockDevice } from '../../src/core/device.ts';
import type { ByteRange } from '../../src/core/units.ts';

/**
 * A device whose requests wait until the test lets them go, in the order and with the outcome it chooses. What is let go
 * happens on the device below.
 */
export class GatedDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly supports: BlockDevice['supports'];
  readonly #below: BlockDevice;
  #held: { readonly what: string; go(outcome?: { error: unknown }): void }[] = [];
  #arrived: (() => void)[] = [];

  constructor(below: BlockDevice) {
    this.#below = below;
    this.sizeBytes = below.sizeBytes;
    this.supports = below.supports;
  }

  /** What waits, in order of arrival: `read 0+512`, `flush`. */
  get held(): readonly string[] {
    return this.#held.map(({ what }) => what);
  }

  /** Resolves once `count` requests wait. */
  async arrival(count: number): Promise<void> {
    while (this.#held.length < count) await new Promise<void>((resolve) => this.#arrived.push(resolve));
  }

  /** Lets the request at `index` of `held` go; with an error, it fails with that. */
  release(index = 0, outcome?: { error: unknown }): void {
    const [request] = this.#held.splice(index, 1);
    request!.go(outcome);
  }

  releaseAll(): void {
    while (this.#held.length > 0) this.release();
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return this.#gate(`read ${offset}+${target.byteLength}`, () => this.#below.read(offset, target));
  }

  write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void> {
    return this.#gate(`write ${offset}+${source.byteLength}`, () => this.#below.write(offset, source, options));
  }

  writeZeroes(range: ByteRange, options: { fua: boolean; mayTrim: boolean }): Promise<void> {
    return this.#gate(`zeroes ${range.offset}+${range.length}`, () => this.#below.writeZeroes(range, options));
  }

  trim(range: ByteRange, options: { fua: boolean }): Promise<void> {
    return this.#gate(`trim ${range.offset}+${range.length}`, () => this.#below.trim(range, options));
  }

  flush(): Promise<void> {
    return this.#gate('flush', () => this.#below.flush());
  }

  close(): Promise<void> {
    return this.#below.close();
  }

  #gate(what: string, act: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = (outcome?: { error: unknown }) => {
        if (outcome === undefined) act().then(resolve, reject);
        else reject(outcome.error);
      };
      this.#held.push({ what, go });
      const arrived = this.#arrived;
      this.#arrived = [];
      for (const wake of arrived) wake();
    });
  }
}
