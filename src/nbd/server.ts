/**
 * The NBD server: listeners, the connections they bring, what these share, and the end.
 */
import type { Socket } from 'node:net';
import type { ExportCatalog } from '../core/export-catalog.ts';
import type { Log } from '../core/log.ts';
import type { AllowList } from './addresses.ts';
import { Connection, type ConnectionShared } from './connection.ts';
import { type NbdCounters, zeroCounters } from './counters.ts';
import { Doorkeeper, type Transport } from './doorkeeper.ts';
import { describeError } from './errno.ts';
import { FramePool } from './frame-pool.ts';
import { InFlight } from './in-flight.ts';
import { type NbdLimits, nbdLimits } from './limits.ts';
import { type ListenAddress, type Listener, type Listening, listen } from './listener.ts';
import { NamedDamage } from './named-damage.ts';
import { RECEIVE_BYTES } from './receive-buffer.ts';
import type { TlsTerms } from './tls-credentials.ts';
import { Writers } from './writers.ts';

export interface NbdServerOptions {
  readonly catalog: ExportCatalog;
  readonly log: Log;
  /** Any number of clients may write one export. Default: one at a time. */
  readonly shared?: boolean;
  /** Payload bytes in flight on all connections together; default in limits.ts. */
  readonly repliesInFlightBytesMax?: number;
  /** Bounds other than the defaults of limits.ts. */
  readonly limits?: Partial<NbdLimits>;
  /** Advertised in NBD_INFO_BLOCK_SIZE, and enforced: 1 (the default), 512 or 4096 bytes. */
  readonly minimumBlockBytes?: 1 | 512 | 4096;
  /** Undefined: no TLS. */
  readonly tls?: TlsTerms | undefined;
  /** Who may connect over TCP; undefined: everybody. */
  readonly allowed?: AllowList | undefined;
  /** A bug showed, and the server has stopped serving: the process should say so and exit. Called once. */
  onBug(error: unknown): void;
  /** The clock of messages. */
  now?(): Date;
}

/** How often stalled clients are looked for while others wait, in milliseconds: a fraction of the patience with them. */
const STALL_CHECKS_PER_PATIENCE = 10;

export class NbdServer {
  /** What has been done so far; live. */
  readonly counters: NbdCounters = zeroCounters();
  readonly #options: NbdServerOptions;
  readonly #limits: NbdLimits;
  readonly #inFlight: InFlight;
  readonly #doorkeeper: Doorkeeper;
  readonly #connectionShared: ConnectionShared;
  readonly #receiveBuffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  readonly #listeners: Listener[] = [];
  /** In order of arrival. */
  readonly #connections = new Set<Connection>();
  readonly #stallCheck: NodeJS.Timeout;
  #stopped = false;
  #closing: Promise<void> | undefined;
  #emptied: (() => void) | undefined;

  constructor(options: NbdServerOptions) {
    this.#options = options;
    const { limits, repliesInFlightBytesMax, catalog, log } = options;
    this.#limits = withBudget({ ...nbdLimits, ...limits }, repliesInFlightBytesMax);
    this.#inFlight = new InFlight(this.#limits);
    this.#doorkeeper = new Doorkeeper(log, options.allowed);
    this.#connectionShared = {
      catalog,
      log,
      writers: options.shared === true ? undefined : new Writers(options.now ?? (() => new Date())),
      limits: this.#limits,
      minimumBlock: options.minimumBlockBytes ?? 1,
      tls: options.tls,
      inFlight: this.#inFlight,
      frames: new FramePool(this.#limits.pooledBytesMax),
      counters: this.counters,
      named: new NamedDamage(),
      bug: (error) => this.#bug(error),
    };
    this.#stallCheck = setInterval(() => this.#dropStalled(), this.#limits.stalledMsMax / STALL_CHECKS_PER_PATIENCE);
    this.#stallCheck.unref();
  }

  /** Requests without a reply that has left, the bytes they hold, and connections that wait for room. */
  get inFlight(): Readonly<{ requests: number; bytes: number; waiting: number }> {
    const { requests, bytes, waiting } = this.#inFlight;
    return { requests, bytes, waiting };
  }

  /**
   * Listens on one more address: `{ host, port }`, port 0 for a free one, `{ path }` of a Unix socket (mode 0600), or
   * `{ fd }` of a socket that listens already. Rejects with UserError, whose message says what to do.
   */
  async listen(address: ListenAddress): Promise<Listening> {
    const tlsRequired = this.#options.tls?.required === true;
    const listener = await listen(address, {
      tlsRequired,
      receiveBuffer: this.#receiveBuffer,
      accept: (socket, via) => this.#accept(socket, via),
    });
    if (this.#stopped) listener.close();
    this.#listeners.push(listener);
    return listener;
  }

  /** Serves a connection that somebody else has accepted; resolves when it has ended. */
  serve(socket: Socket): Promise<void> {
    const via = socket.remoteAddress === undefined ? 'unix' : 'tcp';
    return new Promise((resolve) => this.#accept(socket, via, resolve));
  }

  /**
   * Stops accepting, finishes what is in flight, answers the rest NBD_ESHUTDOWN and closes all connections. Clients get
   * `drainMsMax` to read what they asked for; the devices are waited for as long as they take. Idempotent. Flushing and
   * closing devices is the caller's.
   */
  close(): Promise<void> {
    this.#closing ??= this.#drain();
    return this.#closing;
  }

  /**
   * Closes the connections of all clients that are attached to such a device: for them as if the network had failed.
   * Their leases are given back once what they had in flight is done.
   */
  disconnect(matches: (deviceId: string) => boolean, reason: string): void {
    for (const connection of [...this.#connections]) {
      if (connection.deviceId !== undefined && matches(connection.deviceId)) connection.destroy(reason);
    }
  }

  async #drain(): Promise<void> {
    this.#stopListening();
    const emptied = new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
    for (const connection of [...this.#connections]) connection.drain();
    const timer = setTimeout(() => {
      for (const connection of [...this.#connections]) connection.destroy('the server is shutting down');
    }, this.#limits.drainMsMax);
    if (this.#connections.size > 0) await emptied;
    clearTimeout(timer);
  }

  #stopListening(): void {
    this.#stopped = true;
    clearInterval(this.#stallCheck);
    for (const listener of this.#listeners) listener.close();
    this.#listeners.length = 0;
  }

  #accept(socket: Socket, via: Transport, ended?: () => void): void {
    const { counters } = this;
    const peer = this.#doorkeeper.admit(socket, via);
    if (peer === undefined || this.#stopped || !this.#makeRoom()) {
      counters.connectionsRefused++;
      if (peer !== undefined) this.#options.log.warn({ client: peer.text }, 'connection refused: all places are taken');
      socket.destroy();
      ended?.();
      return;
    }
    counters.connectionsTotal++;
    counters.connectionsOpen++;
    const done = () => {
      counters.connectionsOpen--;
      this.#connections.delete(connection);
      if (this.#connections.size === 0) this.#emptied?.();
      ended?.();
    };
    const connection = new Connection(this.#connectionShared, socket, { peer, done });
    this.#connections.add(connection);
  }

  /** Whether there is a place, if need be that of the client which has haggled longest. */
  #makeRoom(): boolean {
    if (this.#connections.size < this.#limits.connectionsMax) return true;
    for (const connection of this.#connections) {
      if (!connection.isExpendable) continue;
      this.counters.connectionsRefused++;
      connection.destroy('all places are taken, and this client has not finished its handshake');
      return true;
    }
    return false;
  }

  /** While somebody waits for room, those who keep it and read nothing are let go. */
  #dropStalled(): void {
    if (!this.#inFlight.contended) return;
    const patienceMs = this.#limits.stalledMsMax;
    for (const connection of [...this.#connections]) {
      const sinceMs = connection.unreadSinceMs;
      if (sinceMs !== undefined && performance.now() - sinceMs > patienceMs) {
        connection.destroy(`it has read no reply for ${patienceMs} ms, and others wait for the memory`);
      }
    }
  }

  /** A disk that is down is better than one that lies. */
  #bug(error: unknown): void {
    if (this.#stopped && this.#closing === undefined) return; // Told already.
    this.#options.log.error({ error: describeError(error) }, 'this is a bug in the server; it stops serving');
    this.#stopListening();
    for (const connection of [...this.#connections]) connection.destroy('the server stops serving');
    this.#options.onBug(error);
  }
}

/** The limits with another budget: a connection gets a quarter of it at most, so that one that reads nothing leaves room. */
function withBudget(limits: NbdLimits, budget: number | undefined): NbdLimits {
  const repliesInFlightBytesMax = budget ?? limits.repliesInFlightBytesMax;
  const bytesPerConnectionMax = Math.min(limits.bytesPerConnectionMax, Math.ceil(repliesInFlightBytesMax / 4));
  return { ...limits, repliesInFlightBytesMax, bytesPerConnectionMax };
}
