import { CorruptStoreError } from '../core/errors.ts';
import { MAC_BYTES } from '../core/mac.ts';
import { formatVersion, STATE_METADATA_MARKER, stateMetadata, versions } from './format.ts';

/** One state, taken apart but its records not yet read (kloset-format section 7). */
export interface State {
  readonly id: string;
  /** Hex id of the state it follows; undefined for a root. */
  readonly parent: string | undefined;
  /** Nanoseconds since 1970: breaks ties between siblings. */
  readonly timestampNanoseconds: bigint;
  readonly records: Uint8Array;
}

/** A record's type and length (7.2). */
export const RECORD_HEAD_BYTES = 1 + 4;

/** Finds a decoded state's parent, records and metadata. Throws CorruptStoreError if its records do not add up. */
export function parseState(id: string, version: number, plain: Uint8Array): State {
  const hasParent = version >= versions.v1_1_0;
  const start = hasParent ? MAC_BYTES : 0;
  if (plain.byteLength < start) throw damagedState(id, 'it is cut short');
  const parent = hasParent ? Buffer.from(plain.subarray(0, MAC_BYTES)).toString('hex') : '';
  const end = findMetadata(id, plain, start);
  if (plain.byteLength !== end + 1 + stateMetadata.sizeBytes)
    throw damagedState(id, 'its metadata has the wrong length');
  const metadata = stateMetadata.read(plain, end + 1);
  if (metadata.version !== version) {
    throw damagedState(id, `its metadata says version ${formatVersion(metadata.version)}, its envelope another`);
  }
  return {
    id,
    parent: /[^0]/.test(parent) ? parent : undefined,
    timestampNanoseconds: metadata.timestampNanoseconds,
    records: plain.subarray(start, end),
  };
}

function findMetadata(id: string, plain: Uint8Array, start: number): number {
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  for (let at = start; at < plain.byteLength; ) {
    if (plain[at] === STATE_METADATA_MARKER) return at;
    if (at + RECORD_HEAD_BYTES > plain.byteLength) break;
    at += RECORD_HEAD_BYTES + view.getUint32(at + 1, true);
  }
  throw damagedState(id, 'its records run past its end');
}

/**
 * Puts states into an order in which each follows its parent. Among those that are ready the oldest comes first:
 * siblings' removals apply to marks that an older sibling made (7.3).
 */
export function orderStates(states: readonly State[]): State[] {
  const present = new Set(states.map((state) => state.id));
  const children = new Map<string, State[]>();
  const ready = new Heap();
  for (const state of states) {
    // A state that names itself would never become ready.
    if (state.parent === undefined || !present.has(state.parent) || state.parent === state.id) ready.push(state);
    else {
      const siblings = children.get(state.parent);
      if (siblings === undefined) children.set(state.parent, [state]);
      else siblings.push(state);
    }
  }
  const ordered: State[] = [];
  for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
    ordered.push(next);
    for (const child of children.get(next.id) ?? []) ready.push(child);
  }
  if (ordered.length !== states.length) {
    const reached = new Set(ordered);
    const left = states.find((state) => !reached.has(state))!;
    throw damagedState(left.id, "it is its own ancestor: the store's states form a cycle");
  }
  return ordered;
}

/** A binary heap of states, oldest first; equal times by id, so that the order never depends on the listing. */
class Heap {
  readonly #items: State[] = [];

  push(state: State): void {
    const items = this.#items;
    let at = items.push(state) - 1;
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (!before(items[at]!, items[up]!)) break;
      [items[at], items[up]] = [items[up]!, items[at]!];
      at = up;
    }
  }

  pop(): State | undefined {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (first === undefined || last === undefined || items.length === 0) return first;
    items[0] = last;
    for (let at = 0; ; ) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < items.length && before(items[child]!, items[least]!)) least = child;
      }
      if (least === at) return first;
      [items[at], items[least]] = [items[least]!, items[at]!];
      at = least;
    }
  }
}

function before(a: State, b: State): boolean {
  if (a.timestampNanoseconds !== b.timestampNanoseconds) return a.timestampNanoseconds < b.timestampNanoseconds;
  return a.id < b.id;
}

export function damagedState(id: string, why: string, cause?: unknown): CorruptStoreError {
  return new CorruptStoreError(`State ${id} is damaged: ${why}`, { details: { state: id }, cause });
}

/** The body of a record whose type has a fixed length. */
export function fixedBody(body: Uint8Array, sizeBytes: number): Uint8Array {
  if (body.byteLength !== sizeBytes) {
    throw new CorruptStoreError(`a record has ${body.byteLength} bytes instead of ${sizeBytes}`);
  }
  return body;
}
