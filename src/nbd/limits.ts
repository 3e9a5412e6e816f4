/** Every bound of the NBD server: unit in the name, the reason beside it. */
import { KiB, MiB } from '../core/units.ts';

export interface NbdLimits {
  /** Milliseconds a client may spend on its side of the handshake. Clients need one; people typing in nbdsh need some. */
  readonly handshakeMsMax: number;
  /** Bytes a client may send before transmission. A thousand queries fit; nobody honest comes near. */
  readonly handshakeBytesMax: number;
  /** Bytes of data of one option: larger is answered NBD_REP_ERR_TOO_BIG. The longest name and a dozen queries fit. */
  readonly optionBytesMax: number;
  /** Options in one handshake. `nbdinfo --list` over a store of 500 snapshots asks for each. */
  readonly handshakeOptionsMax: number;
  /**
   * Connections at once. Each costs some 20 KiB, with TLS some 100, one that is held back up to the 256 KiB that came last;
   * qemu or the kernel open at most 16 each. When all are taken, a
   * newcomer displaces the one that has haggled longest; connections that serve a disk are never displaced.
   */
  readonly connectionsMax: number;
  /** Requests in flight on a connection, their reply unsent included. The kernel keeps 128 a queue, fio up to 256. */
  readonly requestsPerConnectionMax: number;
  /** Requests in flight on all connections: some 500 bytes each. */
  readonly requestsMax: number;
  /**
   * Payload bytes in flight on a connection: a quarter of what all may have by default, so that a client that does not
   * read its replies leaves room for others. A single request may exceed it, alone.
   */
  readonly bytesPerConnectionMax: number;
  /** Payload bytes in flight on all connections, unless the constructor is told: half of the default --inflight-memory. */
  readonly repliesInFlightBytesMax: number;
  /**
   * A connection with nothing in flight may always have this many bytes, whatever the others hold: their unread replies
   * never stop it. The largest request of most clients fits (the kernel sends at most 128 or 256 KiB).
   */
  readonly guaranteedBytes: number;
  /**
   * Milliseconds. A client that holds bytes others wait for, and has read none of its replies for so long, is
   * disconnected. Longer than a network's hiccup and a virtual machine's pause.
   */
  readonly stalledMsMax: number;
  /** Bytes of one READ or WRITE, advertised in NBD_INFO_BLOCK_SIZE: the 32 MiB every client may count on (spec, "Size constraints"). */
  readonly payloadBytesMax: number;
  /** Bytes of a READ that may be answered in the turn it came in; copying a longer one would keep the others waiting for more than a fraction of a millisecond. */
  readonly readNowBytesMax: number;
  /** Of these, bytes that may come from the cache's disk: pages of a database, no scans. */
  readonly readDiskNowBytesMax: number;
  /** Bytes of a WRITE that may be carried out in the turn it came in. */
  readonly writeNowBytesMax: number;
  /** Bytes of a refused payload that are read and thrown away to stay in step; a longer one ends the connection. Four times what is allowed. */
  readonly drainedPayloadBytesMax: number;
  /** Extents in one reply to BLOCK_STATUS: 64 KiB a context, 128 KiB with extended headers. Clients ask again from where it ends. */
  readonly statusExtentsMax: number;
  /** Milliseconds without a request after which a connection is closed; 0 for never: a mounted disk may rest for days. */
  readonly idleMsMax: number;
  /** Milliseconds that clients get at shutdown to read the replies in flight. A supervisor's patience is often 10 seconds or more. */
  readonly drainMsMax: number;
  /** Milliseconds between our last byte and the client's close, in which its further bytes are thrown away: an early close would reset the connection and lose replies. */
  readonly lingerMsMax: number;
  /** Milliseconds between two lines of the log about clients whom no --allow lets in. */
  readonly refusalLogMs: number;
  /** Bytes of buffers for replies and payloads kept for reuse. A dozen requests of 1 MiB. */
  readonly pooledBytesMax: number;
}

export const nbdLimits: NbdLimits = {
  handshakeMsMax: 30_000,
  handshakeBytesMax: 1 * MiB,
  optionBytesMax: 64 * KiB,
  handshakeOptionsMax: 1024,
  connectionsMax: 512,
  requestsPerConnectionMax: 256,
  requestsMax: 8192,
  bytesPerConnectionMax: 16 * MiB,
  repliesInFlightBytesMax: 64 * MiB,
  guaranteedBytes: 256 * KiB,
  stalledMsMax: 30_000,
  payloadBytesMax: 32 * MiB,
  readNowBytesMax: 1 * MiB,
  readDiskNowBytesMax: 32 * KiB,
  writeNowBytesMax: 64 * KiB,
  drainedPayloadBytesMax: 128 * MiB,
  statusExtentsMax: 8192,
  idleMsMax: 0,
  drainMsMax: 5_000,
  lingerMsMax: 1_000,
  refusalLogMs: 10_000,
  pooledBytesMax: 12 * MiB,
};
