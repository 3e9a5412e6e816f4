/** A range of blocks; `exclusive` holders have it alone, others share it. */
export interface LockRequest {
  readonly first: number;
  readonly count: number;
  readonly exclusive: boolean;
}

interface Held extends LockRequest {
  /** Called when the range is given back. */
  readonly waiting: (() => void)[];
}

/**
 * Keeps a read-modify-write of a block apart from every other write to it. Whole-block writes share: they replace what
 * is there, so any order of them is right. Requests are served first come, first served, so nobody waits for a later one
 * and there is no deadlock. A server has at most some hundred requests in flight: a plain scan is quicker than a tree.
 */
export class RangeLocks {
  readonly #held = new Set<Held>();

  /** The function that gives the range back, to be called once; where somebody else has it, a promise of that. */
  acquire(request: LockRequest): (() => void) | Promise<() => void> {
    const conflicts: Promise<void>[] = [];
    for (const other of this.#held) {
      if (isInConflict(other, request)) conflicts.push(new Promise((resolve) => other.waiting.push(resolve)));
    }
    const held: Held = { ...request, waiting: [] };
    this.#held.add(held);
    const release = () => {
      this.#held.delete(held);
      for (const resolve of held.waiting) resolve();
    };
    return conflicts.length === 0 ? release : Promise.all(conflicts).then(() => release);
  }

  /** Whether `acquire` would give it at once. */
  isFree(request: LockRequest): boolean {
    for (const other of this.#held) if (isInConflict(other, request)) return false;
    return true;
  }
}

function isInConflict(one: LockRequest, other: LockRequest): boolean {
  const isApart = one.first >= other.first + other.count || one.first + one.count <= other.first;
  return !isApart && (one.exclusive || other.exclusive);
}
