import { MERGED_BYTES_MAX, MERGED_GAP_BYTES_MAX } from './fetch-limits.ts';
import { type RemoteStore, TransientStoreError } from './remote-store.ts';
import type { Slots } from './slots.ts';

export interface PlacedReadOptions {
  readonly signal: AbortSignal;
  /** Called when the read has its place, alone or with others; again if it gets one anew. */
  readonly onPlace: () => void;
}

/** A range of a packfile that somebody waits for. */
interface Waiting extends PlacedReadOptions {
  readonly id: string;
  readonly offset: number;
  readonly target: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  /** Failed together with others: is not merged again. */
  isAlone: boolean;
}

/** Bytes of a packfile that are fetched as one, and who waits for parts of them. */
interface Group {
  readonly startsAt: number;
  readonly endsAt: number;
  readonly members: Set<Waiting>;
}

/**
 * Reads ranges of packfiles, each in a place of `slots`; ranges that touch, or nearly, and wait for a place at the same time
 * get one together. It is stopped when none of their readers waits any more. What can pass fails for all of them; after any
 * other error each is read once more alone, since it may be the fault of one.
 */
export class MergedReads {
  readonly #store: RemoteStore;
  readonly #slots: Slots;
  readonly #waiting = new Set<Waiting>();

  constructor(store: RemoteStore, slots: Slots) {
    this.#store = store;
    this.#slots = slots;
  }

  /** As KlosetStore.readPackfile. */
  read(id: string, offset: number, target: Uint8Array, { signal, onPlace }: PlacedReadOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#admit({ id, offset, target, signal, onPlace, resolve, reject, isAlone: false });
    });
  }

  /** Reads at once if there is a place, else waits for one or for a neighbour that gets one. */
  #admit(read: Waiting): void {
    if (this.#slots.tryAcquire()) {
      void this.#fetch(groupOf(read, []));
      return;
    }
    this.#waiting.add(read);
    this.#slots.acquire(read.signal).then(
      () => {
        // A neighbour may have taken it along by now, or nobody waits for it any more.
        if (this.#waiting.has(read) && !read.signal.aborted) return void this.#fetch(this.#gather(read));
        this.#slots.release();
        if (this.#waiting.delete(read)) read.reject(read.signal.reason);
      },
      (error: unknown) => {
        if (this.#waiting.delete(read)) read.reject(error);
      },
    );
  }

  #gather(first: Waiting): Group {
    this.#waiting.delete(first);
    const mayJoin = ({ id, isAlone, signal }: Waiting) => id === first.id && !isAlone && !signal.aborted;
    const others = first.isAlone ? [] : [...this.#waiting].filter(mayJoin);
    const group = groupOf(first, others);
    for (const member of group.members) this.#waiting.delete(member);
    return group;
  }

  /** In a place that has been acquired, which it gives back. Never rejects. */
  async #fetch({ startsAt, endsAt, members }: Group): Promise<void> {
    const stop = new AbortController();
    const [first] = members;
    const leavers = [...members].map((member) => {
      const leave = () => {
        members.delete(member);
        if (members.size === 0) stop.abort(member.signal.reason);
        member.reject(member.signal.reason);
      };
      member.signal.addEventListener('abort', leave, { once: true });
      member.onPlace();
      return () => member.signal.removeEventListener('abort', leave);
    });
    const isMerged = members.size > 1;
    const target = isMerged ? new Uint8Array(endsAt - startsAt) : first!.target;
    let error: unknown;
    try {
      await this.#store.readPackfile(first!.id, startsAt, target, { signal: stop.signal });
    } catch (reason) {
      error = reason;
    }
    for (const done of leavers) done();
    this.#slots.release();
    for (const member of members) {
      if (error === undefined) {
        if (isMerged) member.target.set(target.subarray(member.offset - startsAt, endOf(member) - startsAt));
        member.resolve();
      } else if (!isMerged || error instanceof TransientStoreError) member.reject(error);
      else {
        member.isAlone = true;
        this.#admit(member);
      }
    }
  }
}

function endOf({ offset, target }: Waiting): number {
  return offset + target.byteLength;
}

/** `first` and as many of the others as lie beside it, or beside those that do, within the bounds. */
function groupOf(first: Waiting, others: readonly Waiting[]): Group {
  let startsAt = first.offset;
  let endsAt = endOf(first);
  const members = new Set([first]);
  // Upwards, then downwards from the first: what lies beside the group is met in that order.
  const upwards = others.filter(({ offset }) => offset >= first.offset).sort((a, b) => a.offset - b.offset);
  const downwards = others.filter(({ offset }) => offset < first.offset).sort((a, b) => endOf(b) - endOf(a));
  for (const other of [...upwards, ...downwards]) {
    const from = Math.min(startsAt, other.offset);
    const to = Math.max(endsAt, endOf(other));
    const isNear = other.offset <= endsAt + MERGED_GAP_BYTES_MAX && endOf(other) >= startsAt - MERGED_GAP_BYTES_MAX;
    if (!isNear || to - from > MERGED_BYTES_MAX) continue;
    startsAt = from;
    endsAt = to;
    members.add(other);
  }
  return { startsAt, endsAt, members };
}
