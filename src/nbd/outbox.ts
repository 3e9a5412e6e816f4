import type { Socket } from 'node:net';
import type { Flight } from './flight.ts';

/**
 * Replies on their way out. All that are ready in one turn of the event loop leave under one cork, in one system call:
 * those that a wake-up brings at its end (`hold`, `letGo`), others when the turn's promises have settled. One write callback a batch says when their buffers and their place in flight are free again: Node sends from the
 * buffers it is given, without a copy.
 *
 * What write() returns is not looked at here: under a cork it only tells that the batch exceeds the stream's mark. The
 * in-flight account, which counts a reply until its callback, stops the reading of requests instead.
 */
export class Outbox {
  readonly #socket: Socket;
  readonly #sent: (flights: readonly Flight[]) => void;
  /** The batch being gathered: slices to send, and whose they are. */
  #batch: Flight[] = [];
  readonly #slices: Buffer[] = [];
  /** Batches the socket has, until their callbacks. */
  readonly #outstanding = new Set<readonly Flight[]>();
  #progressMs = 0;
  #held = false;
  readonly #flush = () => this.#writeBatch();

  constructor(socket: Socket, sent: (flights: readonly Flight[]) => void) {
    this.#socket = socket;
    this.#sent = sent;
  }

  /** performance.now() when the client last took something; undefined if nothing waits for it. */
  get waitingSinceMs(): number | undefined {
    return this.#outstanding.size > 0 ? this.#progressMs : undefined;
  }

  /** Keeps what is sent until `letGo`. */
  hold(): void {
    this.#held = true;
  }

  letGo(): void {
    this.#held = false;
    this.#writeBatch();
  }

  send(bytes: Buffer, flight: Flight): void {
    // Promises that settle in this turn come before it: nextTick's queue is looked at when theirs is empty.
    if (this.#slices.length === 0 && !this.#held) process.nextTick(this.#flush);
    this.#slices.push(bytes);
    this.#batch.push(flight);
  }

  /** The socket is closed: no callback will come for what it still has. */
  close(): void {
    const left = [...this.#outstanding, this.#batch];
    this.#outstanding.clear();
    this.#batch = [];
    this.#slices.length = 0;
    for (const batch of left) this.#sent(batch);
  }

  #writeBatch(): void {
    const last = this.#slices.pop();
    if (last === undefined) return; // Closed in between.
    const batch = this.#batch;
    this.#batch = [];
    if (this.#outstanding.size === 0) this.#progressMs = performance.now();
    this.#outstanding.add(batch);
    // A lone reply, as clients get that wait for each, needs no cork: that would put it through the stream's queue.
    const several = this.#slices.length > 0;
    if (several) this.#socket.cork();
    for (const slice of this.#slices) this.#socket.write(slice);
    this.#slices.length = 0;
    this.#socket.write(last, () => {
      this.#progressMs = performance.now();
      // False if close has dealt with it.
      if (this.#outstanding.delete(batch)) this.#sent(batch);
    });
    if (several) this.#socket.uncork();
  }
}
