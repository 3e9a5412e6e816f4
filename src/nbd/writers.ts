/**
 * One writer at a time: ext4 is no cluster filesystem, and two clients that write one disk destroy it. A client is an
 * address: all connections from one TCP peer address are one client, and so are all connections on Unix sockets.
 */
import type { ExportLease } from '../core/export-catalog.ts';
import type { Refusal } from './handshake.ts';
import { optionReplies } from './protocol.ts';

/** Who is at the other end of a connection. */
export interface Peer {
  /** Equal for connections of one client. */
  readonly client: string;
  /** For people: address, and port where there is one. */
  readonly text: string;
}

/** The right to write one device, for one connection. */
export interface WriterHold {
  /** Idempotent. For when nothing of the connection is in flight any more: its last write must not meet the next writer's first. */
  release(): void;
}

interface Holder {
  readonly client: string;
  readonly text: string;
  readonly since: Date;
  connections: number;
}

export class Writers {
  readonly #now: () => Date;
  /** By device: all names of a device are one. */
  readonly #holders = new Map<string, Holder>();

  constructor(now: () => Date) {
    this.#now = now;
  }

  /** The right to write the lease's device, or a refusal that names who holds it. */
  enter({ deviceId, name }: Pick<ExportLease, 'deviceId' | 'name'>, peer: Peer): WriterHold | Refusal {
    const holder = this.#holders.get(deviceId) ?? { ...peer, since: this.#now(), connections: 0 };
    if (holder.client !== peer.client) {
      return {
        reply: optionReplies.NBD_REP_ERR_POLICY,
        message:
          `export "${name}" is in use by ${holder.text} since ${holder.since.toISOString()}, and a disk takes one writer ` +
          'at a time: disconnect that client first, or serve with --shared',
      };
    }
    holder.connections++;
    this.#holders.set(deviceId, holder);
    let held = true;
    return {
      release: () => {
        if (!held) return;
        held = false;
        holder.connections--;
        if (holder.connections === 0) this.#holders.delete(deviceId);
      },
    };
  }
}
