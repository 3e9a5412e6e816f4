/**
 * `serve --supervise`: a server that outlives its worker.
 *
 *   clients ===== supervisor ----- worker: the same command line, on a private Unix socket; store, overlay, devices
 *                     |               one connection for each client's
 *                 listening sockets, connections, requests that have no reply yet
 *
 * The supervisor relays. It reads as much of the protocol as it must to know which requests are unanswered, and keeps
 * these with their payloads. When the worker dies, it starts another, says each client's handshake again, holds the
 * answers against the first ones byte for byte, asks which device the name means by now, and sends what is unanswered
 * in the order in which it came. A client notices a pause.
 *
 * Why that is right:
 *
 *   - What a worker acknowledged it had given to write(2) before, so it is in the page cache and survives a process
 *     (not the host: for that a client has FLUSH). The next worker reads it from the log, and syncs what of it is not
 *     known to be durable before it writes. So a FLUSH sent again covers all writes acknowledged by any worker.
 *   - A request sent again may have been carried out already, its reply lost. All of NBD's may be repeated: until the
 *     reply a client cannot know which of two overlapping requests came last. (One that has overlapping writes in
 *     flight, and reads the range meanwhile, may see the older one come back. File systems and databases do not.)
 *   - A reply goes on to the client when it is complete (reply-relay.ts), so there are no halves to be finished.
 *   - A client never gets another device: its session's answers and the device's identity must be the same, or it is
 *     disconnected.
 *   - The worker dies with the supervisor, however that ends (control.ts), and the overlay's lock with the worker.
 *
 * The next worker is started ahead of need and has the program loaded: that is two thirds of what a start takes.
 *
 * The one-writer rule is kept here, by the clients' own addresses: to the worker all of them are one client. A worker
 * that cannot be kept alive (restarts.ts) ends the supervisor: exit 1, and clients get an error.
 *
 * TLS ends here, since a session's keys cannot move to the next worker; between supervisor and worker bytes are in clear, on
 * a Unix socket of their own.
 *
 * Deliberately not done: a worker that hangs is not killed, since a slow store looks the same. Handshakes are relayed option by option, so a client that pipelines them gains nothing.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { exitCodes } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { AllowList } from '../nbd/addresses.ts';
import { Doorkeeper, type Transport } from '../nbd/doorkeeper.ts';
import { InFlight } from '../nbd/in-flight.ts';
import { nbdLimits } from '../nbd/limits.ts';
import { type ListenAddress, type Listener, listen } from '../nbd/listener.ts';
import type { TlsTerms } from '../nbd/tls-credentials.ts';
import { Writers } from '../nbd/writers.ts';
import { RelayedConnection, type RelayShared } from './connection.ts';
import type { DeviceIdentity } from './control.ts';
import { type SuperviseLimits, superviseLimits } from './limits.ts';
import { Restarts } from './restarts.ts';
import { startWorker, type Worker, type WorkerEnd } from './worker-process.ts';

export interface SupervisorOptions {
  readonly log: Log;
  /** Any number of clients may write one export. */
  readonly shared: boolean;
  /** Undefined: no TLS. */
  readonly tls?: TlsTerms | undefined;
  /** Who may connect over TCP; undefined: everybody. */
  readonly allowed?: AllowList | undefined;
  /** Starts the worker number `generation`, from 1. */
  startWorker(generation: number): Worker;
  readonly limits?: Partial<SuperviseLimits>;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #limits: SuperviseLimits;
  readonly #relayShared: RelayShared;
  readonly #restarts: Restarts;
  readonly #doorkeeper: Doorkeeper;
  readonly #listeners: Listener[] = [];
  readonly #connections = new Set<RelayedConnection>();
  /** The worker that is there, or being started. */
  #worker: Worker | undefined;
  /** It serves. */
  #isReady = false;
  #readyAtMs = 0;
  #hasServed = false;
  #generation = 0;
  /** The next worker, which has loaded the program and waits to be needed. */
  #spare: Worker | undefined;
  /** Whether a worker has ever served. */
  #hasBeenReady = false;
  #isStopping = false;
  /** Told when there is another worker to ask, or none will come. */
  #waitingForWorker: (() => void)[] = [];
  #emptied: (() => void) | undefined;
  #cancelDelay: (() => void) | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    const limits = { ...superviseLimits, ...options.limits };
    this.#limits = limits;
    this.#restarts = new Restarts(limits);
    this.#doorkeeper = new Doorkeeper(options.log, options.allowed);
    const isStopping = () => this.#isStopping;
    this.#relayShared = {
      log: options.log,
      limits,
      writers: options.shared ? undefined : new Writers(() => new Date()),
      tls: options.tls,
      inFlight: new InFlight({ ...limits, repliesInFlightBytesMax: limits.bytesMax }),
      get isStopping() {
        return isStopping();
      },
      identify: (name) => this.#identify(name),
      served: () => {
        this.#hasServed = true;
      },
    };
  }

  /** Listens on one more public address. Rejects with UserError. Clients wait until there is a worker. */
  async listen(address: ListenAddress): Promise<Listener> {
    const tlsRequired = this.#options.tls?.required === true;
    const listener = await listen(address, { tlsRequired, accept: (socket, via) => this.#accept(socket, via) });
    this.#listeners.push(listener);
    return listener;
  }

  /** Relays a connection that somebody else has accepted; resolves when it has ended. */
  serve(socket: Socket): Promise<void> {
    const via = socket.remoteAddress === undefined ? 'unix' : 'tcp';
    return new Promise((resolve) => this.#accept(socket, via, resolve));
  }

  /**
   * Keeps a worker alive until `stop`, or until that is given up; calls `onReady` when the first one serves. Resolves
   * to the exit code: 0 in order, the worker's own if the first one never served, 1 otherwise.
   */
  async run(onReady: () => void): Promise<number> {
    const { log } = this.#options;
    for (;;) {
      const end = await this.#runWorker(onReady);
      if (this.#isStopping) return this.#finish(end.exitCode === 0 ? exitCodes.ok : exitCodes.failure);
      // What is wrong at the start (options, the store, the overlay) stays wrong; the worker has said what it is.
      if (!this.#hasBeenReady) return this.#finish(end.exitCode || exitCodes.failure);
      const nowMs = performance.now();
      const livedMs = this.#readyAtMs === 0 ? 0 : nowMs - this.#readyAtMs;
      const fruitful = this.#hasServed || livedMs >= this.#limits.fruitfulMs;
      const verdict = this.#restarts.died({ nowMs, fruitful });
      const fields = { exitCode: end.exitCode, signal: end.signal };
      if ('giveUp' in verdict) {
        log.error(
          { ...fields, lastLines: end.lastLines },
          `Giving up: ${verdict.giveUp}. The last one said: ${end.lastLines}`,
        );
        return this.#finish(exitCodes.failure);
      }
      log.warn({ ...fields, clients: this.#connections.size }, 'The worker died; its clients wait for the next one.');
      await this.#delay(verdict.restartAfterMs);
      if (this.#isStopping) return this.#finish(exitCodes.failure);
    }
  }

  /** Ends in order: nothing new is accepted, the worker finishes what is in flight, clients are let go. `run` resolves then. */
  stop(): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    for (const listener of this.#listeners) listener.close();
    this.#cancelDelay?.();
    this.#worker?.kill('SIGTERM');
  }

  /** Hands a signal on to the worker, if there is one. */
  signal(signal: NodeJS.Signals): void {
    this.#worker?.kill(signal);
  }

  /** Starts a worker and brings the clients to it; resolves when it has ended. */
  async #runWorker(onReady: () => void): Promise<WorkerEnd> {
    const startedMs = performance.now();
    this.#hasServed = false;
    this.#readyAtMs = 0;
    const worker = this.#spare ?? this.#startWorker();
    this.#spare = undefined;
    this.#worker = worker;
    worker.begin();
    if (await worker.ready) {
      this.#isReady = true;
      this.#readyAtMs = performance.now();
      const startMs = Math.round(this.#readyAtMs - startedMs);
      if (!this.#hasBeenReady) onReady();
      else
        this.#options.log.info({ pid: worker.pid, startMs, clients: this.#connections.size }, 'A new worker serves.');
      this.#hasBeenReady = true;
      this.#wake();
      for (const connection of [...this.#connections]) connection.attach(worker.socketPath);
      this.#keepSpare();
    }
    const end = await worker.ended;
    this.#worker = undefined;
    this.#isReady = false;
    // One that ended in order has said its last replies: they are still to be read.
    if (!this.#isStopping) for (const connection of [...this.#connections]) connection.detach();
    return end;
  }

  #startWorker(): Worker {
    return this.#options.startWorker(++this.#generation);
  }

  #keepSpare(): void {
    if (this.#isStopping) return;
    const spare = this.#startWorker();
    this.#spare = spare;
    void spare.ended.then(() => {
      if (this.#spare === spare) this.#spare = undefined;
    });
  }

  /** The last worker is gone: nothing more will be answered. */
  async #finish(exitCode: number): Promise<number> {
    this.#isStopping = true;
    this.#spare?.kill('SIGKILL');
    for (const listener of this.#listeners) listener.close();
    this.#wake();
    const emptied = new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
    // Those that are being closed in order get the time to read what they asked for; the others wait for nothing.
    for (const connection of [...this.#connections]) connection.abandon();
    const timer = setTimeout(() => {
      for (const connection of [...this.#connections]) connection.destroy('the server is shutting down');
    }, nbdLimits.drainMsMax);
    if (this.#connections.size > 0) await emptied;
    clearTimeout(timer);
    return exitCode;
  }

  async #identify(name: string): Promise<DeviceIdentity | undefined> {
    for (;;) {
      const worker = this.#isReady ? this.#worker : undefined;
      const answer = await worker?.identify(name);
      if (worker !== undefined && answer !== 'ended') return answer as DeviceIdentity | undefined;
      if (this.#isStopping) return undefined;
      if (this.#worker === worker || !this.#isReady)
        await new Promise<void>((resolve) => this.#waitingForWorker.push(resolve));
    }
  }

  #wake(): void {
    const waiting = this.#waitingForWorker;
    this.#waitingForWorker = [];
    for (const resolve of waiting) resolve();
  }

  #delay(ms: number): Promise<void> {
    if (ms === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#cancelDelay = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Whether there is a place, if need be that of the client which has been longest in a TLS handshake: the worker knows of none. */
  #makeRoom(): boolean {
    if (this.#connections.size < this.#limits.connectionsMax) return true;
    const longest = [...this.#connections].find(({ isExpendable }) => isExpendable);
    longest?.destroy('all places are taken, and this client has not finished its TLS handshake');
    return longest !== undefined;
  }

  #accept(socket: Socket, via: Transport, ended?: () => void): void {
    const peer = this.#doorkeeper.admit(socket, via);
    if (peer === undefined || this.#isStopping || !this.#makeRoom()) {
      socket.destroy();
      ended?.();
      return;
    }
    const done = () => {
      this.#connections.delete(connection);
      if (this.#connections.size === 0) this.#emptied?.();
      ended?.();
    };
    const connection = new RelayedConnection(this.#relayShared, socket, { peer, done });
    this.#connections.add(connection);
    if (this.#isReady) connection.attach(this.#worker!.socketPath);
  }
}

export interface SuperviseOptions extends Pick<SupervisorOptions, 'log' | 'shared' | 'tls' | 'allowed'> {
  /** The command line's main file, and the words given to it. */
  readonly script: string;
  readonly argv: readonly string[];
  /** SIGHUP goes to the worker, too. */
  readonly handsOnHangup: boolean;
  /** The store's passphrase; called when the first worker finds that it needs one. */
  passphrase(): Promise<Uint8Array>;
  /** Opens the ways in. Returns what is to be done when the first worker serves, told whether the store is encrypted. */
  open(supervisor: Supervisor): Promise<(isEncrypted: boolean) => void>;
}

/** Runs `serve --supervise`; resolves to the exit code. Rejects with UserError if a way in cannot be opened. */
export async function supervise({ script, argv, open, ...options }: SuperviseOptions): Promise<number> {
  // Only we may enter: whoever connects to the private socket has passed the one-writer rule.
  const folder = await mkdtemp(join(tmpdir(), 'kloset-nbd-supervise-'));
  let found: Promise<Uint8Array> | undefined;
  const passphrase = () => {
    // Asked once, for all workers.
    found ??= options.passphrase();
    return found;
  };
  const supervisor = new Supervisor({
    ...options,
    startWorker: (generation) =>
      startWorker({ script, argv, socketPath: join(folder, `${generation}.sock`), passphrase }),
  });
  handSignals(supervisor, options.log);
  if (options.handsOnHangup) process.on('SIGHUP', () => supervisor.signal('SIGHUP'));
  try {
    const onReady = await open(supervisor);
    return await supervisor.run(() => onReady(found !== undefined));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** As the plain server: SIGTERM and SIGINT end it in order, a second one at once; SIGUSR1 asks for a report. */
function handSignals(supervisor: Supervisor, log: Log): void {
  let isStopping = false;
  const onSignal = (signal: 'SIGTERM' | 'SIGINT') => {
    // The worker ends with us.
    if (isStopping) process.exit(128 + constants.signals[signal]);
    isStopping = true;
    log.info({}, 'Stopping: the worker finishes what is in flight.');
    supervisor.stop();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.on('SIGUSR1', () => supervisor.signal('SIGUSR1'));
}
