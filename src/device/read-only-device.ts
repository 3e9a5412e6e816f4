import type { BlockDevice, Reach, ReadableDevice } from '../core/device.ts';
import { OverlayError } from '../core/errors.ts';
import type { StopOptions } from '../core/stop.ts';

/** Shows a device to clients that may only read it. Borrows it: closing this leaves it open for others. */
export class ReadOnlyDevice implements BlockDevice {
  readonly supports = { fua: false, trim: false, multiConn: true } as const;
  readonly sizeBytes: number;
  readonly #base: ReadableDevice;

  constructor(base: ReadableDevice) {
    this.sizeBytes = base.sizeBytes;
    this.#base = base;
  }

  read(offset: number, target: Uint8Array, options?: StopOptions): Promise<void> {
    return this.#base.read(offset, target, options);
  }

  readNow(offset: number, target: Uint8Array, reach?: Reach): boolean {
    return this.#base.readNow?.(offset, target, reach) ?? false;
  }

  async write(): Promise<void> {
    throw refused();
  }

  async writeZeroes(): Promise<void> {
    throw refused();
  }

  async trim(): Promise<void> {
    throw refused();
  }

  /** Nothing was written, so everything is as durable as it was promised to be. */
  async flush(): Promise<void> {}

  async close(): Promise<void> {}
}

function refused(): OverlayError {
  return new OverlayError('the device is read-only', { reason: 'io' });
}
