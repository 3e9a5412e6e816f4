/** A range of blocks; `exclusive` holders have it alone, others share it. */
export interface LockRequest {
  readonly first: number;
  readonly count: number;
  readonly exclusive: boolean;
}

interface Held extends LockRequest {
  readonly released: Promise<void>;
}

/**
 * Keeps a read-modify-write of a block apart from every other write to it. Whole-block writes share: they replace what
 * is there, so any order of them is right. Requests are served first come, first served, so nobody waits for a later one
 * and there is no deadlock. A server has at most some hundred requests in flight: a plain scan is quicker than a tree.
 */
export class RangeLocks {
  readonly #held = new Set<Held>();

  /** Resolves to the function that gives the range back; call it once. */
  async acquire(request: LockRequest): Promise<() => void> {
    const end = request.first + request.count;
    const conflicts: Promise<void>[] = [];
    for (const other of this.#held) {
      if (other.first >= end || other.first + other.count <= request.first) continue;
      if (other.exclusive || request.exclusive) conflicts.push(other.released);
    }
    const { promise: released, resolve } = withResolvers();
    const held: Held = { ...request, released };
    this.#held.add(held);
    if (conflicts.length > 0) await Promise.all(conflicts);
    return () => {
      this.#held.delete(held);
      resolve();
    };
  }
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
