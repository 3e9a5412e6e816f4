/** Adds to an error of the reader what the operator knows: which snapshot, which file, which chunk. */
import type { ChunkRef } from '../core/chunk-store.ts';
import { CorruptStoreError, type ErrorDetails, StoreUnavailableError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';

/** Names snapshot, file and chunk. An error that names this file already stays; one of another file that shares the chunk is kept behind it. */
export function nameChunk(error: unknown, { file, indexInFile, mac }: ChunkRef): unknown {
  const path = Buffer.from(file.path).toString();
  return nameIn(error, {
    where: `file ${path}, chunk ${indexInFile}`,
    details: { snapshot: file.snapshotId, file: path, chunk: indexInFile, mac: toHex(mac) },
  });
}

/** Names snapshot and path. */
export function namePath(error: unknown, { snapshotId, path }: { snapshotId: string; path: Uint8Array }): unknown {
  const file = Buffer.from(path).toString();
  return nameIn(error, { where: `file ${file}`, details: { snapshot: snapshotId, file } });
}

/** Names the snapshot alone: for its trees, which belong to no file. */
export function nameSnapshot(error: unknown, snapshotId: string): unknown {
  return nameIn(error, { where: undefined, details: { snapshot: snapshotId } });
}

function nameIn(
  error: unknown,
  { where, details }: { where: string | undefined; details: ErrorDetails & { readonly snapshot: string } },
): unknown {
  if (!(error instanceof CorruptStoreError || error instanceof StoreUnavailableError)) return error;
  const { snapshot, file } = error.details;
  if (snapshot === details.snapshot && (details.file === undefined || file === details.file)) return error;
  const message = `Snapshot ${[details.snapshot.slice(0, 8), ...(where === undefined ? [] : [where])].join(', ')}: ${error.message}`;
  const Kind = error instanceof CorruptStoreError ? CorruptStoreError : StoreUnavailableError;
  return new Kind(message, { details: { ...error.details, ...details }, cause: error });
}
