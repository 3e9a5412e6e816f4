/** What verifying finds wrong, in the shape it is reported. */
import { CorruptStoreError, type KlosetNbdError, StoreUnavailableError } from '../core/errors.ts';
import { TransientStoreError } from '../kloset/remote-store.ts';
import { PROBLEMS_LISTED_MAX } from './limits.ts';

/** One thing that is wrong, and which part of the snapshot is worse for it. */
export interface Problem {
  /**
   * `snapshot`: nothing of it can be read; `tree`: a node of one of its trees; `directory`: a list of entries; `file`,
   * `attribute`: a content; `entry`: a record of one entry.
   */
  readonly kind: 'snapshot' | 'tree' | 'directory' | 'entry' | 'file' | 'attribute';
  /** Absolute, raw bytes; undefined where it is not about one. */
  readonly path: Uint8Array | undefined;
  /** Which chunk of the content, and the bytes of the file that are lost; undefined where all of it is. */
  readonly chunk?: { readonly index: number; readonly offset: number; readonly lengthBytes: number };
  readonly error: KlosetNbdError;
}

const NO_PATH = new Uint8Array(0);

/** The problems of one snapshot: as many as people can use are kept, the others counted. */
export class Problems {
  readonly listed: Problem[] = [];
  count = 0;
  /** A file is met in the list of its directory and in the tree of files; it is reported once. */
  readonly #known = new Set<string>();

  add(problem: Problem): void {
    const { kind, path, chunk, error } = problem;
    const key = [kind, path === undefined ? error.message : Buffer.from(path).toString('latin1'), chunk?.index].join(
      '\0',
    );
    if (this.#known.has(key)) return;
    this.count++;
    if (this.listed.length === PROBLEMS_LISTED_MAX) return;
    this.#known.add(key);
    this.listed.push(problem);
  }

  /** By path, and by place in the file: what was met first is chance. */
  sort(): void {
    this.listed.sort(
      (a, b) => Buffer.compare(a.path ?? NO_PATH, b.path ?? NO_PATH) || (a.chunk?.index ?? -1) - (b.chunk?.index ?? -1),
    );
  }
}

/**
 * The error as damage of the store: bytes that are wrong or missing. Throws it if it says nothing about the store, such as
 * that it cannot be reached at the moment.
 */
export function requireDamage(error: unknown): KlosetNbdError {
  const isAway = error instanceof TransientStoreError || (error as Error).cause instanceof TransientStoreError;
  if (isAway || !(error instanceof CorruptStoreError || error instanceof StoreUnavailableError)) throw error;
  return error;
}
