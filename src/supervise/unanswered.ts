/**
 * The requests of one connection that have no reply yet, each in a slot. Towards the worker a request's cookie is the
 * number of its slot: a reply finds its request without a search, and clients may use one cookie twice. The client's
 * own cookie is put back into the reply.
 */
import { assert } from '../core/errors.ts';
import type { InFlightAccount } from '../nbd/in-flight.ts';
import { nbdExtendedRequest } from '../nbd/protocol.ts';
import { DecodedRequest } from '../nbd/request.ts';

/** One request from its header to the end of its reply, with the client's own cookie. Reused. */
export class Slot extends DecodedRequest {
  readonly index: number;
  /** Orders requests as they came. */
  order = 0;
  inUse = false;
  /** False if its payload was too large to keep: then the worker refuses it, and its death costs the connection. */
  replayable = true;
  /** As it goes to the worker. */
  readonly header = Buffer.allocUnsafe(nbdExtendedRequest.sizeBytes);
  /** What has come of the payload: views of what the socket gave. */
  readonly payload: Buffer[] = [];
  /** Chunks of a structured reply that wait for the last one. */
  readonly chunks: Buffer[] = [];

  constructor(index: number) {
    super();
    this.index = index;
  }
}

export class Unanswered {
  readonly #account: InFlightAccount;
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  #nextOrder = 0;

  constructor(account: InFlightAccount) {
    this.#account = account;
  }

  get count(): number {
    return this.#slots.length - this.#free.length;
  }

  /** A slot to decode a header into. Give it to `admit` or `putBack`. */
  spare(): Slot {
    const spare = this.#free.pop();
    if (spare !== undefined) return spare;
    const slot = new Slot(this.#slots.length);
    this.#slots.push(slot);
    return slot;
  }

  putBack(slot: Slot): void {
    this.#free.push(slot);
  }

  /** Whether the request has room, with so many bytes of payload to keep; if not, the account's `retry` will be called. */
  admit(slot: Slot, keptBytes: number): boolean {
    if (!this.#account.take(keptBytes)) return false;
    slot.chargedBytes = keptBytes;
    slot.order = this.#nextOrder++;
    slot.inUse = true;
    return true;
  }

  /** The request that a reply with this cookie is for; undefined if there is none. */
  find(cookieHigh: number, cookieLow: number): Slot | undefined {
    const slot = cookieHigh === 0 ? this.#slots[cookieLow] : undefined;
    return slot?.inUse === true ? slot : undefined;
  }

  /** The request is answered. */
  release(slot: Slot): void {
    assert(slot.inUse, 'a request is answered once');
    slot.inUse = false;
    slot.replayable = true;
    if (slot.payload.length > 0) slot.payload.length = 0;
    if (slot.chunks.length > 0) slot.chunks.length = 0;
    this.#free.push(slot);
    this.#account.give(slot.chargedBytes);
  }

  /** Gives everything back: the client is gone. */
  clear(): void {
    for (const slot of this.#slots) if (slot.inUse) this.release(slot);
    this.#account.leave();
  }

  /** Forgets what has come of replies: their worker died. */
  forgetReplies(): void {
    for (const slot of this.#slots) slot.chunks.length = 0;
  }

  get allReplayable(): boolean {
    return this.#slots.every(({ inUse, replayable }) => !inUse || replayable);
  }

  /** What to send to a new worker: every request in the order it came in, payloads as far as they have come. */
  replay(headerBytes: number): Buffer[] {
    return this.#slots
      .filter(({ inUse }) => inUse)
      .sort((a, b) => a.order - b.order)
      .flatMap(({ header, payload }) => [header.subarray(0, headerBytes), ...payload]);
  }
}
