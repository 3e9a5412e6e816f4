import { randomBytes } from 'node:crypto';
import type { ReadableDevice } from '../core/device.ts';
import type { Log } from '../core/log.ts';
import { MemoryBudget } from '../device/memory-budget.ts';
import { openMemoryOverlay } from '../device/memory-overlay.ts';
import { TOKEN_BYTES } from '../device/overlay-metadata.ts';
import type { SpaceOptions } from '../device/space-gate.ts';
import type { Overlay, Overlays } from './overlays.ts';

export interface MemoryOverlaysOptions {
  /** Bytes of all overlays together kept in memory; what is beyond goes to a file. */
  readonly memoryBytesMax: number;
  /** Where that file is made; undefined: the system's choice, unless that is a tmpfs. */
  readonly tempDir: string | undefined;
  /** What goes to that file is encrypted. */
  readonly encryptSpill: boolean;
  /** What happens when there is no room. */
  readonly space: SpaceOptions;
  readonly log: Log;
}

/** Overlays that die with the process: there is never an earlier one to go on with. */
export class MemoryOverlays implements Overlays {
  readonly isVolatile = true;
  readonly #options: MemoryOverlaysOptions;
  readonly #budget: MemoryBudget;
  readonly #token = randomBytes(TOKEN_BYTES).toString('hex');

  constructor(options: MemoryOverlaysOptions) {
    this.#options = options;
    this.#budget = new MemoryBudget(options.memoryBytesMax);
  }

  async pinned(): Promise<undefined> {}

  async keyOf(): Promise<undefined> {}

  async tokenOf(): Promise<string> {
    return this.#token;
  }

  open(_key: string, base: ReadableDevice): Promise<Overlay> {
    const { tempDir, encryptSpill, log, space } = this.#options;
    return openMemoryOverlay(base, { ...space, memoryBudget: this.#budget, tempDir, encryptSpill, log });
  }

  async close(): Promise<void> {}
}
