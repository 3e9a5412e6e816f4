/**
 * What a snapshot needs: everything that verifying it looks at. The walk itself brings all metadata, since the hooks of its
 * repository write what is fetched; of the contents it notes the objects, and counts their chunks.
 */
import { forEachConcurrently } from '../core/concurrency.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { resourceTypes } from '../kloset/format.ts';
import type { Repository } from '../kloset/repository.ts';
import type { SnapshotHeader } from '../kloset/snapshot.ts';
import { readChunkTable } from '../kloset/vfs.ts';
import type { CheckedContent } from '../verify/content-check.ts';
import { requireDamage } from '../verify/problems.ts';
import { SoundSet } from '../verify/sound-set.ts';
import { type VerifyParts, verifySnapshot } from '../verify/verify-snapshot.ts';

/** A chunk of the plan. */
export interface PlannedChunk {
  readonly mac: Uint8Array;
  /** Plain bytes. */
  readonly lengthBytes: number;
}

export class Plan {
  /** Stored bytes of all chunks, each once, and their number. */
  chunkBytes = 0;
  chunks = 0;
  /** Stored bytes of the chunks that were there when the plan was made. */
  readyBytes = 0;
  /** What the store lacks or has damaged, each once. */
  readonly damaged = new Map<string, Error>();
  /** Objects, 32 bytes each. */
  #objects = new Uint8Array(1024 * MAC_BYTES);
  #objectCount = 0;

  addObject(mac: Uint8Array): void {
    if ((this.#objectCount + 1) * MAC_BYTES > this.#objects.byteLength) {
      const grown = new Uint8Array(this.#objects.byteLength * 2);
      grown.set(this.#objects);
      this.#objects = grown;
    }
    this.#objects.set(mac, this.#objectCount++ * MAC_BYTES);
  }

  /** MACs in the order the walk met them: files that lie together follow each other. */
  *objects(): Generator<Uint8Array> {
    for (let i = 0; i < this.#objectCount; i++) yield this.#objects.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES);
  }
}

/** Walks the snapshot. `has`: whether a chunk is there already. Rejects with what says nothing about the store's content. */
export async function makePlan(
  parts: Pick<VerifyParts, 'repository' | 'chunks'> & { readonly has: (mac: Uint8Array) => Promise<boolean> },
  header: SnapshotHeader,
): Promise<Plan> {
  const plan = new Plan();
  const walk = new PlanWalk(parts, plan);
  const id = Buffer.from(header.id, 'hex');
  // Nothing reads it here yet; a snapshot without it could not be told to be unsigned.
  const signature = { type: resourceTypes.signature, mac: id };
  if ((await parts.repository.storedLength(signature)) !== undefined) await parts.repository.readBlob(signature);
  const { problems } = await verifySnapshot({ ...parts, contents: walk, onFile: () => {} }, header, '/');
  for (const { error } of problems.listed) plan.damaged.set(error.message, error);
  return plan;
}

class PlanWalk {
  readonly #parts: { readonly repository: Repository; readonly has: (mac: Uint8Array) => Promise<boolean> };
  readonly #plan: Plan;
  /** With the size of their content. */
  readonly #objects = new SoundSet();
  readonly #chunks = new SoundSet();

  constructor(
    parts: { readonly repository: Repository; readonly has: (mac: Uint8Array) => Promise<boolean> },
    plan: Plan,
  ) {
    this.#parts = parts;
    this.#plan = plan;
  }

  async check(object: Uint8Array): Promise<CheckedContent> {
    const known = this.#objects.get(object);
    if (known !== undefined) return { sizeBytes: known, problems: [] };
    try {
      const { macs, starts } = await readChunkTable(this.#parts.repository, object);
      const sizeBytes = starts[starts.length - 1]!;
      if (this.#objects.get(object) === undefined) {
        this.#objects.set(object, sizeBytes);
        this.#plan.addObject(object);
        for (let at = 0; at < macs.byteLength; at += MAC_BYTES) await this.#count(macs.subarray(at, at + MAC_BYTES));
      }
      return { sizeBytes, problems: [] };
    } catch (error) {
      return { sizeBytes: undefined, problems: [{ error: requireDamage(error) }] };
    }
  }

  async #count(mac: Uint8Array): Promise<void> {
    if (this.#chunks.get(mac) !== undefined) return;
    this.#chunks.set(mac, 0);
    const { repository, has } = this.#parts;
    const bytes = await repository.storedLength({ type: resourceTypes.chunk, mac });
    // Whoever fetches it names it.
    if (bytes === undefined) return;
    this.#plan.chunks++;
    this.#plan.chunkBytes += bytes;
    if (await has(mac)) this.#plan.readyBytes += bytes;
  }
}

/** Calls `work` for each chunk of each object of the plan; for one that several objects share, several times. */
export function forEachChunk(
  plan: Plan,
  repository: Repository,
  atOnceMax: number,
  work: (chunk: PlannedChunk) => Promise<void>,
): Promise<void> {
  return forEachConcurrently(chunksOf(plan, repository), atOnceMax, work);
}

async function* chunksOf(plan: Plan, repository: Repository): AsyncGenerator<PlannedChunk> {
  for (const object of plan.objects()) {
    let table: Awaited<ReturnType<typeof readChunkTable>>;
    try {
      table = await readChunkTable(repository, object);
    } catch (error) {
      const damage = requireDamage(error);
      plan.damaged.set(damage.message, damage);
      continue;
    }
    const { macs, starts } = table;
    for (let i = 0; i + 1 < starts.length; i++) {
      yield {
        mac: macs.subarray(i * MAC_BYTES, (i + 1) * MAC_BYTES),
        lengthBytes: starts[i + 1]! - starts[i]!,
      };
    }
  }
}
