/**
 * Where writes wait that have found no room: the disk is full, or the overlay has reached its limit.
 *
 * A write that is refused would turn ext4 read-only and stop a database, so it is better parked. Those parked
 * stand in a line; the first tries again after a pause, when another write got through, or when the limit is raised, and
 * lets the next one try once it has landed. Later writes join the end of the line without trying. Changes without data
 * (zeroes, trims) try first, since they are what makes room. FLUSH does not come here, nor do reads.
 *
 *   open ──a change finds no room──► full ──the last of the line has landed──► open
 */
import { OverlayError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import type { BlockStore, Change } from './block-store.ts';
import { SpaceLimit } from './space-limit.ts';

/** How long the first of the line waits before it tries again, unless told otherwise. Space is freed by people. */
const RETRY_DELAY_MS = 1000;
/** Shares of the limit at which a warning is logged, each once until the overlay is below it again. */
const WARNING_SHARES = [0.8, 0.95] as const;

/** Whether writes land, or wait for space. */
export type OverlayHealth = { readonly state: 'ok' } | { readonly state: 'full'; readonly reason: string };

export interface SpaceOptions {
  /** What becomes of a write without room: it waits, or it ends with OverlayError 'full'. By default 'fail'. */
  readonly onFull?: 'pause' | 'fail' | undefined;
  /** Bytes of blocks and records the overlay may take, memory and files together; undefined: what the disk has. */
  readonly overlayLimit?: SpaceLimit | undefined;
  /** Called when writes begin to wait, and when none waits any more, in turn. Must not throw. */
  readonly onHealth?: ((health: OverlayHealth) => void) | undefined;
  /** For tests: milliseconds between two attempts. */
  readonly retryDelayMs?: number | undefined;
}

interface Parked {
  readonly tryAgain: () => void;
  readonly reject: (error: OverlayError) => void;
}

export class SpaceGate {
  readonly #store: BlockStore;
  readonly #options: SpaceOptions;
  readonly #log: Log;
  /** Longest waiting first. The one that tries is not in it. */
  readonly #line: Parked[] = [];
  #full: OverlayError | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Nothing waits any more. */
  #closed: boolean;
  readonly #limit: SpaceLimit;
  readonly #forgetLimit: () => void;
  /** Bytes that changes on their way to the store will take. */
  #reservedBytes = 0;
  #warnedShares = 0;

  constructor(store: BlockStore, options: SpaceOptions, log: Log) {
    this.#store = store;
    this.#options = options;
    this.#log = log;
    this.#limit = options.overlayLimit ?? new SpaceLimit(undefined);
    this.#closed = this.#limit.waitingEnds;
    this.#forgetLimit = this.#limit.onChange(() => this.#limitChanged());
  }

  /** Lands the changes as the store does, or waits until it can. Rejects with OverlayError. */
  async apply(changes: readonly Change[]): Promise<void> {
    const makesRoom = changes.every(({ data }) => data === undefined);
    let waited = this.#full !== undefined && !makesRoom;
    if (waited) await this.#park('last');
    for (;;) {
      try {
        await this.#attempt(changes);
        this.#landed(waited);
        return;
      } catch (error) {
        if (!(error instanceof OverlayError) || error.reason !== 'full') {
          this.#landed(waited);
          throw error;
        }
        if (this.#options.onFull !== 'pause' || this.#closed) throw error;
        this.#becomeFull(error);
      }
      await this.#park(waited ? 'first' : 'last');
      waited = true;
    }
  }

  /** As `apply`, at once; false if that is to be asked: where there is a limit, or others wait for room. */
  applyNow(changes: readonly Change[]): boolean {
    if (this.#full !== undefined || this.#limit.bytes !== Number.POSITIVE_INFINITY) return false;
    return this.#store.applyNow?.(changes) === true;
  }

  /** Ends what waits with OverlayError 'full'; from now on nothing waits. */
  close(): void {
    this.#forgetLimit();
    this.#endWaiting();
    if (this.#full !== undefined) this.#options.onHealth?.({ state: 'ok' });
    this.#full = undefined;
  }

  #endWaiting(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const { reject } of this.#line.splice(0)) {
      reject(new OverlayError('the server ended while a write waited for space', { reason: 'full' }));
    }
  }

  async #attempt(changes: readonly Change[]): Promise<void> {
    if (this.#limit.bytes === Number.POSITIVE_INFINITY) return this.#store.apply(changes);
    const bytes = this.#store.roomFor(changes);
    const used = this.#store.usedBytes;
    if (bytes > 0 && used + this.#reservedBytes + bytes > this.#limit.bytes) {
      this.#store.makeRoom('moving');
      const limit = formatBytes(this.#limit.bytes);
      throw new OverlayError(`the overlay has reached its limit of ${limit}; raise it, or trim what is not needed`, {
        reason: 'full',
        details: { limitBytes: this.#limit.bytes, usedBytes: used },
      });
    }
    if (used + bytes > WARNING_SHARES[0] * this.#limit.bytes) this.#store.makeRoom('removing');
    this.#reservedBytes += bytes;
    try {
      await this.#store.apply(changes);
    } finally {
      this.#reservedBytes -= bytes;
    }
    this.#warn();
  }

  #park(place: 'first' | 'last'): Promise<void> {
    if (this.#closed) throw this.#full ?? new OverlayError('the device is closed', { reason: 'io' });
    return new Promise((resolve, reject) => {
      const parked = { tryAgain: resolve, reject };
      if (place === 'first') this.#line.unshift(parked);
      else this.#line.push(parked);
      this.#timer ??= setTimeout(() => this.#next(), this.#options.retryDelayMs ?? RETRY_DELAY_MS);
    });
  }

  #limitChanged(): void {
    this.#warnedShares = 0;
    if (this.#limit.waitingEnds) this.#endWaiting();
    else this.#next();
  }

  #next(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#line.shift()?.tryAgain();
  }

  /** A change got through: the next in the line tries; when there is none, the fault is over. */
  #landed(waited: boolean): void {
    if (this.#full === undefined) return;
    if (this.#line.length > 0) this.#next();
    else if (waited) {
      this.#full = undefined;
      this.#log.info({}, 'the overlay has space again: no write waits any more');
      this.#options.onHealth?.({ state: 'ok' });
    }
  }

  #becomeFull(error: OverlayError): void {
    if (this.#full !== undefined) return;
    this.#full = error;
    this.#log.error({ error }, `${error.message}; writes wait until there is space`);
    this.#options.onHealth?.({ state: 'full', reason: error.message });
  }

  #warn(): void {
    const used = this.#store.usedBytes;
    const crossed = WARNING_SHARES.filter((share) => used >= share * this.#limit.bytes).length;
    if (crossed > this.#warnedShares) {
      const percent = Math.round((WARNING_SHARES[crossed - 1] ?? 0) * 100);
      const limit = formatBytes(this.#limit.bytes);
      this.#log.warn(
        { usedBytes: used, limitBytes: this.#limit.bytes },
        `the overlay has reached ${percent} % of ${limit}`,
      );
    }
    this.#warnedShares = crossed;
  }
}
