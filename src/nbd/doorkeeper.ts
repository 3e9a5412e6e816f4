/** Who comes in: the address of whoever has connected, held against the list of those that may. */
import type { Socket } from 'node:net';
import type { Log } from '../core/log.ts';
import { type AllowList, plainAddress } from './addresses.ts';
import { nbdLimits } from './limits.ts';
import type { Peer } from './writers.ts';

export type Transport = 'tcp' | 'unix';

export class Doorkeeper {
  readonly #log: Log;
  readonly #allowed: AllowList | undefined;
  readonly #nowMs: () => number;
  #loggedAtMs = Number.NEGATIVE_INFINITY;
  #unlogged = 0;

  /** `allowed`: undefined for everybody. Unix sockets have their permissions instead. */
  constructor(log: Log, allowed: AllowList | undefined, nowMs: () => number = () => performance.now()) {
    this.#log = log;
    this.#allowed = allowed;
    this.#nowMs = nowMs;
  }

  /** Who has connected; undefined if the socket is to be closed: it may not come in, or is gone already. */
  admit({ remoteAddress, remotePort }: Pick<Socket, 'remoteAddress' | 'remotePort'>, via: Transport): Peer | undefined {
    if (via === 'unix') return { client: 'unix', text: 'a client on a Unix socket' };
    // TCP knows no address of one that is gone.
    if (remoteAddress === undefined) return undefined;
    const address = plainAddress(remoteAddress);
    const text = `${address.includes(':') ? `[${address}]` : address}:${remotePort}`;
    if (this.#allowed?.has(remoteAddress) === false) {
      this.#logRefusal(text);
      return undefined;
    }
    return { client: address, text };
  }

  /** One line in a while: whoever knocks must not fill the log. */
  #logRefusal(client: string): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#loggedAtMs < nbdLimits.refusalLogMs) {
      this.#unlogged++;
      return;
    }
    const others = this.#unlogged === 0 ? '' : `, as ${this.#unlogged} others since the last such line`;
    this.#log.warn({ client }, `connection refused: no --allow has this address${others}`);
    this.#loggedAtMs = nowMs;
    this.#unlogged = 0;
  }
}
