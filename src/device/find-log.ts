/** The log in an overlay's directory, found and read, with nothing changed yet. */
import type { KeyObject } from 'node:crypto';
import type { Log } from '../core/log.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import type { OverlayFile, OverlayFileSystem } from './file-system.ts';
import { type BlockForm, blockChecksumsOf, segmentOfFileName } from './log-format.ts';
import { SegmentReader } from './log-reader.ts';
import { type RecoveredLog, recoverLog } from './log-recovery.ts';
import { type OverlayMetadata, readClosed } from './overlay-metadata.ts';
import { overlayKey as keyOf, type OverlayKeySource, SEALED_BLOCK_BYTES } from './segment-cipher.ts';
import { SegmentFiles } from './segment-files.ts';

export interface FoundLog {
  readonly recovered: RecoveredLog;
  /** The caller's to close. */
  readonly files: SegmentFiles;
  readonly overlayId: bigint;
  /** Undefined for a log that is not encrypted. */
  readonly overlayKey: KeyObject | undefined;
  readonly readerOf: (file: OverlayFile, segment: number) => Promise<SegmentReader>;
}

export interface FindLogOptions {
  readonly fileSystem: OverlayFileSystem;
  /** Where the key of an encrypted overlay comes from. */
  readonly keyFor?: OverlayKeySource | undefined;
  readonly log: Log;
}

/** Rejects with UserError for an encrypted overlay with another key. */
export async function findLog(
  directory: string,
  metadata: OverlayMetadata,
  { fileSystem, keyFor, log }: FindLogOptions,
): Promise<FoundLog> {
  const { encryption } = metadata;
  const overlayKey = encryption && keyOf(directory, encryption, keyFor);
  const form: BlockForm = {
    blockBytes: overlayKey === undefined ? BLOCK_SIZE : SEALED_BLOCK_BYTES,
    checksumsOf: blockChecksumsOf(metadata.formatVersion),
  };
  const files = new SegmentFiles(directory, fileSystem);
  const overlayId = BigInt(`0x${metadata.overlayId}`);
  const readerOf = async (file: OverlayFile, segment: number) => {
    const { sizeBytes } = await file.status();
    return new SegmentReader(file, { sizeBytes, overlayId, segment, overlayKey, form });
  };
  try {
    const names = await fileSystem.list(directory);
    const present = names.flatMap((name) => segmentOfFileName(name) ?? []).sort((a, b) => a - b);
    const closed = await readClosed(fileSystem, directory);
    const recovered = await recoverLog({ files, present, readerOf, form, closed, log });
    return { recovered, files, overlayId, overlayKey, readerOf };
  } catch (error) {
    await files.closeAll();
    throw error;
  }
}
