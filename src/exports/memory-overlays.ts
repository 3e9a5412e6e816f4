import type { ReadableDevice } from '../core/device.ts';
import type { Log } from '../core/log.ts';
import { openMemoryOverlay } from '../device/memory-overlay.ts';
import type { Overlay, Overlays } from './overlays.ts';

export interface MemoryOverlaysOptions {
  /** Bytes of each overlay kept in memory before it spills to a file. */
  readonly memoryBytesMax: number;
  /** Where that file is made; undefined: the system's choice, unless that is a tmpfs. */
  readonly tempDir: string | undefined;
  readonly log: Log;
}

/** Overlays that die with the process: there is never an earlier one to go on with. */
export class MemoryOverlays implements Overlays {
  readonly isVolatile = true;
  readonly #options: MemoryOverlaysOptions;

  constructor(options: MemoryOverlaysOptions) {
    this.#options = options;
  }

  async pinned(): Promise<undefined> {}

  async keyOf(): Promise<undefined> {}

  open(_key: string, base: ReadableDevice): Promise<Overlay> {
    const { memoryBytesMax, tempDir, log } = this.#options;
    return openMemoryOverlay(base, { memoryLimitBytes: memoryBytesMax, tempDir, log });
  }

  async close(): Promise<void> {}
}
