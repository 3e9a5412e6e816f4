/** What failed streams mean to readers: the error they get, and how long it stands before plakar is tried again. */
import type { FileRef } from '../core/chunk-store.ts';
import { CorruptStoreError, type KlosetNbdError, StoreUnavailableError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';
import { FAILED_FILES_MAX, RETRY_PAUSE_MS_MAX } from './plakar-cat-options.ts';
import type { CatFailure } from './plakar-cat-stream.ts';

interface Failure {
  readonly error: KlosetNbdError;
  /** Chunks before it are not concerned. */
  readonly chunkIndex: number;
  readonly pauseMs: number;
  readonly untilMs: number;
}

/** The whole store, where a file's key would stand. */
const WHOLE_STORE = '';

/**
 * Remembers failures, so that reads which repeat at once do not start a process each. Time only decides how long an
 * error is repeated, never whether bytes are right.
 */
export class FailureMemory {
  readonly #pauseMs: number;
  readonly #now: () => number;
  /** By file key, the longest remembered first. */
  readonly #failures = new Map<string, Failure>();

  constructor({ pauseMs, now }: { pauseMs: number; now: () => number }) {
    this.#pauseMs = pauseMs;
    this.#now = now;
  }

  /** The error a read of this chunk would only meet again. */
  find(key: string, chunkIndex: number): KlosetNbdError | undefined {
    for (const failure of [this.#failures.get(WHOLE_STORE), this.#failures.get(key)]) {
      if (failure !== undefined && chunkIndex >= failure.chunkIndex && this.#now() < failure.untilMs) {
        return failure.error;
      }
    }
    return undefined;
  }

  /** `key` undefined: any file would fail. Each failure in a row doubles the pause. */
  remember(key: string | undefined, chunkIndex: number, error: KlosetNbdError): void {
    const name = key ?? WHOLE_STORE;
    const previous = this.#failures.get(name);
    const pauseMs = previous === undefined ? this.#pauseMs : Math.min(previous.pauseMs * 2, RETRY_PAUSE_MS_MAX);
    this.#failures.delete(name);
    this.#failures.set(name, {
      error,
      chunkIndex: key === undefined ? 0 : chunkIndex,
      pauseMs,
      untilMs: this.#now() + pauseMs,
    });
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > FAILED_FILES_MAX && oldest !== undefined) this.#failures.delete(oldest);
  }

  /** The file was streamed to its end: neither it nor the store fails any more. */
  forget(key: string): void {
    this.#failures.delete(key);
    this.#failures.delete(WHOLE_STORE);
  }
}

/** Identity of a file: the same for every FileRef to it. */
export function fileKey({ snapshotId, path }: FileRef): string {
  return `${snapshotId}:${Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString('latin1')}`;
}

/** `Snapshot 6300a0a8, file /PG_VERSION`, for messages. */
export function describeFile({ snapshotId, path }: FileRef): string {
  const name = Buffer.from(path)
    .toString()
    .replace(/\p{Cc}/gu, '?');
  return `Snapshot ${snapshotId.slice(0, 8)}, file ${name}`;
}

/** What readers of the failed chunk and of all behind it get. */
export function describeFailure(file: FileRef, failure: CatFailure): KlosetNbdError {
  const chunk = file.chunks[failure.chunkIndex];
  const message = `${describeFile(file)}, chunk ${failure.chunkIndex}: ${failure.reason}`;
  // The names that our own reader gives them: whoever adds a place to an error sees that this one has it.
  const details = {
    snapshot: file.snapshotId,
    file: Buffer.from(file.path).toString(),
    chunk: failure.chunkIndex,
    mac: chunk && toHex(chunk.mac),
    reason: failure.reason,
  };
  return failure.kind === 'corrupt'
    ? new CorruptStoreError(message, { details, cause: failure.cause })
    : new StoreUnavailableError(message, { details, cause: failure.cause });
}

/** What reads get that are still waiting when the store is closed. */
export function closingError(): StoreUnavailableError {
  return new StoreUnavailableError('the snapshot is being closed');
}
