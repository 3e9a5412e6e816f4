/** The log in an overlay's directory, found and read, with nothing changed yet. */
import type { Log } from '../core/log.ts';
import type { OverlayFile, OverlayFileSystem } from './file-system.ts';
import { segmentOfFileName } from './log-format.ts';
import { SegmentReader } from './log-reader.ts';
import { type RecoveredLog, recoverLog } from './log-recovery.ts';
import { type OverlayMetadata, readClosed } from './overlay-metadata.ts';
import { SegmentFiles } from './segment-files.ts';

export interface FoundLog {
  readonly recovered: RecoveredLog;
  /** The caller's to close. */
  readonly files: SegmentFiles;
  readonly overlayId: bigint;
  readonly readerOf: (file: OverlayFile, segment: number) => Promise<SegmentReader>;
}

export async function findLog(
  directory: string,
  metadata: OverlayMetadata,
  { fileSystem, log }: { readonly fileSystem: OverlayFileSystem; readonly log: Log },
): Promise<FoundLog> {
  const files = new SegmentFiles(directory, fileSystem);
  const overlayId = BigInt(`0x${metadata.overlayId}`);
  const readerOf = async (file: OverlayFile, segment: number) => {
    const { sizeBytes } = await file.status();
    return new SegmentReader(file, { sizeBytes, overlayId, segment });
  };
  try {
    const names = await fileSystem.list(directory);
    const present = names.flatMap((name) => segmentOfFileName(name) ?? []).sort((a, b) => a - b);
    const closed = await readClosed(fileSystem, directory);
    const recovered = await recoverLog({ files, present, readerOf, closed, log });
    return { recovered, files, overlayId, readerOf };
  } catch (error) {
    await files.closeAll();
    throw error;
  }
}
