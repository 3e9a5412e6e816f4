import { availableParallelism } from 'node:os';
import { Closers } from '../core/closers.ts';
import { ByteBudget } from '../core/concurrency.ts';
import { newReadCounters, type ReadCounters } from '../core/counters.ts';
import { INFLIGHT_MEMORY_BYTES_DEFAULT } from '../core/limits.ts';
import type { Log } from '../core/log.ts';
import type { Progress } from '../core/progress.ts';
import { type KeySource, Repository } from '../kloset/repository.ts';
import { type Selector, selectSnapshot } from '../kloset/selector.ts';
import { listSnapshots, type SnapshotHeader } from '../kloset/snapshot.ts';
import type { KlosetStore } from '../kloset/store.ts';
import type { BytePath } from '../source/directory-lister.ts';
import { KlosetChunkStore } from '../source/kloset-chunk-store.ts';
import { resolveRoot } from '../source/kloset-source.ts';
import { PooledDecoder } from '../workers/pool.ts';
import { ContentCheck } from './content-check.ts';
import { Problems } from './problems.ts';
import { type SnapshotFindings, verifySnapshot } from './verify-snapshot.ts';

export interface VerifyRequest {
  /** Stays the caller's. */
  readonly store: KlosetStore;
  readonly keys: KeySource;
  /** None: all snapshots. */
  readonly selectors: readonly Selector[];
  /** Read every chunk, too. */
  readonly withData: boolean;
  /** Verifies a store without those of its states that are damaged: what only they list is not looked at. */
  readonly ignoreDamaged?: boolean | undefined;
  readonly log: Log;
  readonly progress: Progress;
}

/** A snapshot that was verified, or could not be. */
export interface VerifiedSnapshot extends SnapshotFindings {
  readonly id: string;
  /** Undefined if its header is damaged. */
  readonly header: SnapshotHeader | undefined;
  readonly root: BytePath;
}

export interface VerifyReport {
  readonly snapshots: readonly VerifiedSnapshot[];
  /** Chunks read and compared, each once; without data, looked up in the index. */
  readonly chunksChecked: number;
  readonly counters: ReadCounters;
}

/**
 * Verifies snapshots of a store. Its index is read anew, whatever is cached. Rejects as opening a store does, with UserError
 * for a selector that means nothing, and with StoreUnavailableError when the store goes away meanwhile.
 */
export async function verifyStore(request: VerifyRequest): Promise<VerifyReport> {
  const closers = new Closers();
  try {
    const report = await verify(request, closers);
    await closers.close();
    return report;
  } catch (error) {
    return closers.closeBecause(error);
  }
}

async function verify({ withData, ...request }: VerifyRequest, closers: Closers): Promise<VerifyReport> {
  const counters = newReadCounters();
  const { keys, ignoreDamaged, log, progress } = request;
  const repository = await Repository.open(request.store, { counters, keys, ignoreDamaged, log, progress });
  closers.add(() => repository.close());
  const { chosen, lost } = await choose(repository, request.selectors);
  const decoder = await PooledDecoder.start(
    { ...repository.codecParameters, isStrict: true },
    { threads: availableParallelism() },
  );
  closers.add(() => decoder.close());
  const budget = new ByteBudget(INFLIGHT_MEMORY_BYTES_DEFAULT);
  const chunks = new KlosetChunkStore({ repository, decoder, budget, counters });
  const contents = new ContentCheck({ repository, decoder, budget, withData });
  const totalBytes = chosen.reduce((sum, { header }) => sum + header.totalBytes, 0);
  const stage = progress.begin('bytes of files verified', totalBytes);
  closers.add(async () => stage.end());
  const snapshots: VerifiedSnapshot[] = [];
  for (const { header, root } of chosen) {
    const parts = { repository, chunks, contents, onFile: (bytes: number) => stage.advance(bytes) };
    snapshots.push({ ...pick(await verifySnapshot(parts, header, root)), id: header.id, header, root });
  }
  return { snapshots: [...snapshots, ...lost], chunksChecked: contents.chunksChecked, counters };
}

async function choose(repository: Repository, selectors: readonly Selector[]) {
  const { snapshots, damaged } = await listSnapshots(repository);
  if (selectors.length > 0) {
    const chosen = selectors.map((selector) => {
      const header = selectSnapshot(snapshots, selector, damaged);
      return { header, root: resolveRoot(header, selector.path) };
    });
    return { chosen, lost: [] };
  }
  const chosen = snapshots.map((header) => ({ header, root: '/' }));
  return { chosen, lost: damaged.map(({ id, error }) => lostSnapshot(id, error)) };
}

function lostSnapshot(id: string, error: Parameters<Problems['add']>[0]['error']): VerifiedSnapshot {
  const problems = new Problems();
  problems.add({ kind: 'snapshot', path: undefined, error });
  return { id, header: undefined, root: '/', problems, entryCount: 0, fileCount: 0, fileBytes: 0, recordsMissing: 0 };
}

function pick({ problems, entryCount, fileCount, fileBytes, recordsMissing }: SnapshotFindings): SnapshotFindings {
  return { problems, entryCount, fileCount, fileBytes, recordsMissing };
}
