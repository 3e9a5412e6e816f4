import type { ReadableDevice } from '../core/device.ts';
import { OVERLAY_MEMORY_BYTES_DEFAULT } from '../core/limits.ts';
import { type Log, silentLog } from '../core/log.ts';
import { nodeFileSystem, type OverlayFileSystem } from './file-system.ts';
import { MemoryBlockStore } from './memory-block-store.ts';
import { MemoryBudget } from './memory-budget.ts';
import { OverlayDevice } from './overlay.ts';
import type { SpaceOptions } from './space-gate.ts';
import { SpillFile, spillDirectory } from './spill-file.ts';

export interface MemoryOverlayOptions extends SpaceOptions {
  /** Bytes of blocks kept in memory; what is beyond goes to a temporary file. */
  readonly memoryLimitBytes?: number;
  /** The same for several overlays together; `memoryLimitBytes` then says nothing. */
  readonly memoryBudget?: MemoryBudget | undefined;
  /** Where that file is made. By default the system's directory for temporary files, or /var/tmp if that is a tmpfs. */
  readonly tempDir?: string | undefined;
  /** What that file has is of an encrypted store: encrypt it, with a key that is in memory only. */
  readonly encryptSpill?: boolean | undefined;
  readonly log?: Log;
  /** For tests. */
  readonly fileSystem?: OverlayFileSystem;
}

/**
 * A writable device over `base` that forgets every write when it is closed or the process ends. Borrows `base`. Rejects
 * with UserError if there is no directory for temporary files.
 */
export async function openMemoryOverlay(
  base: ReadableDevice,
  options: MemoryOverlayOptions = {},
): Promise<OverlayDevice> {
  const { memoryLimitBytes = OVERLAY_MEMORY_BYTES_DEFAULT, tempDir, log = silentLog } = options;
  const directory = await spillDirectory(tempDir, log);
  const { fileSystem = nodeFileSystem, encryptSpill = false } = options;
  const spill = new SpillFile({ directory, encrypt: encryptSpill, log, fileSystem });
  const budget = options.memoryBudget ?? new MemoryBudget(memoryLimitBytes);
  return new OverlayDevice(base, new MemoryBlockStore({ budget, spill }), options, log);
}
