/**
 * One client and its connection to the worker, the only place that touches the two sockets.
 *
 *   waiting -> replaying -> relaying -> waiting        a worker came, answered as the last one had, died
 *   waiting | relaying -> securing -> waiting          the TLS handshake, which ends here; no worker has part in it
 *   any -> closing                                     the client left, or there is nothing more to relay
 *
 * Back-pressure goes through: while one socket does not take what it is given, or a request has no room, the other one
 * is not read from. Both allow half-open use, as the server does: a client that has shut down its sending side still
 * gets its replies.
 */
import { connect, type Socket } from 'node:net';
import type { Log } from '../core/log.ts';
import type { ReplyStyle } from '../nbd/handshake.ts';
import { type InFlight, InFlightAccount } from '../nbd/in-flight.ts';
import { nbdLimits } from '../nbd/limits.ts';
import type { TlsTerms } from '../nbd/tls-credentials.ts';
import { upgradeToTls } from '../nbd/tls-upgrade.ts';
import type { Peer, Writers } from '../nbd/writers.ts';
import type { DeviceIdentity } from './control.ts';
import { HandshakeRelay } from './handshake-relay.ts';
import type { SuperviseLimits } from './limits.ts';
import { ReplyRelay } from './reply-relay.ts';
import { RequestRelay } from './request-relay.ts';
import { Unanswered } from './unanswered.ts';

export interface RelayShared {
  readonly log: Log;
  readonly limits: SuperviseLimits;
  readonly writers: Writers | undefined;
  readonly tls: TlsTerms | undefined;
  readonly inFlight: InFlight;
  /** No worker will follow the one there is: what it closes is closed. */
  readonly isStopping: boolean;
  identify(name: string): Promise<DeviceIdentity | undefined>;
  /** Something came from the worker for a client. */
  served(): void;
}

/** The relays of the transmission phase. */
interface Transmission {
  readonly requests: RequestRelay;
  readonly replies: ReplyRelay;
}

/** What a new worker has yet to say before anything is asked of it. */
interface Replay {
  readonly expect: Buffer;
  matchedBytes: number;
}

export class RelayedConnection {
  readonly #shared: RelayShared;
  /** The one that was accepted, or its encrypted self. */
  #client: Socket;
  readonly #peer: Peer;
  /** Called once, when the client is gone and nothing of it is in flight. */
  readonly #done: () => void;
  readonly #handshake: HandshakeRelay;
  readonly #unanswered: Unanswered;
  #transmission: Transmission | undefined;
  #worker: Socket | undefined;
  /** Where the worker listens that there is. */
  #workerPath: string | undefined;
  #replay: Replay | undefined;
  /** Bytes go on to the worker at once; else they are kept, and replayed. */
  #isForwarding = false;
  #inputEnded = false;
  #isClosing = false;
  #clientClosed = false;
  #isDone = false;
  #timer: NodeJS.Timeout | undefined;
  /** Runs during the TLS handshake. */
  #securing: NodeJS.Timeout | undefined;
  readonly #onData = (chunk: Buffer) => this.#receiveFromClient(chunk);
  readonly #onEnd = () => this.#endInput();
  readonly #onDrain = () => this.#steer();
  readonly #onError = (error: Error) => {
    this.#log('debug', `the connection failed: ${error.message}`);
    // Node leaves a socket open whose TLS has failed.
    this.#client.destroy();
  };
  /** What is to be sent when the chunk at hand has been worked off. */
  #toClient: Uint8Array[] = [];
  #toWorker: Uint8Array[] = [];

  constructor(shared: RelayShared, client: Socket, { peer, done }: { peer: Peer; done: () => void }) {
    this.#shared = shared;
    this.#client = client;
    this.#peer = peer;
    this.#done = done;
    this.#unanswered = new Unanswered(new InFlightAccount(shared.inFlight, () => this.#retry()));
    this.#handshake = new HandshakeRelay({
      peer,
      writers: shared.writers,
      identify: (name) => shared.identify(name),
      sendClient: (bytes) => this.#toClient.push(bytes),
      sendWorker: (bytes) => this.#sendWorker(bytes),
      tls: shared.tls,
      startTls: (answer, received) => this.#startTls(answer, received),
      flush: () => this.#flush(),
      enter: (style, rest) => this.#enter(style, rest),
      close: (reason) => this.#close(reason),
    });
    this.#listen(client);
    // Also for its encrypted self, which closes it.
    client.on('close', () => this.#clientGone());
  }

  /** Whether it is past its handshake. */
  get isServing(): boolean {
    return this.#transmission !== undefined;
  }

  /** It is in the middle of a TLS handshake, which its client may never finish: can be spared for another. */
  get isExpendable(): boolean {
    return this.#securing !== undefined;
  }

  /** There is a worker that listens at `path`: brings it to where the last one was, and goes on. */
  attach(path: string): void {
    this.#workerPath = path;
    if (this.#isClosing || this.#securing !== undefined) return;
    clearTimeout(this.#timer);
    const worker = connect({ path, allowHalfOpen: true });
    this.#worker = worker;
    const { say, expect } = this.#handshake.replay();
    this.#replay = { expect, matchedBytes: 0 };
    const current = (action: () => void) => () => {
      if (this.#worker === worker) action();
    };
    worker.on('data', (chunk: Buffer) => {
      if (this.#worker === worker) this.#receiveFromWorker(chunk);
    });
    worker.on(
      'drain',
      current(() => this.#steer()),
    );
    worker.on(
      'end',
      current(() => this.#workerClosed()),
    );
    worker.on('error', (error) => this.#shared.log.debug({ error: error.message }, 'connection to the worker failed'));
    worker.on(
      'close',
      current(() => this.#workerClosed()),
    );
    if (say.length > 0) worker.write(say);
    if (expect.length === 0) void this.#resume(worker);
    this.#steer();
  }

  /** The worker is dead. What it owes is asked of the next one. */
  detach(): void {
    this.#workerPath = undefined;
    if (!this.#isClosing) clearTimeout(this.#timer);
    this.#dropWorker();
    if (this.#clientClosed) this.#finish();
    else this.#steer();
  }

  /** No worker will come any more: what is unanswered stays so. */
  abandon(): void {
    if (!this.#isClosing && this.#worker === undefined) this.destroy('there is no worker to answer it');
  }

  /** Closes now; what was not written out is lost. */
  destroy(reason: string): void {
    if (this.#clientClosed) return;
    this.#log('warn', `disconnected: ${reason}`);
    this.#isClosing = true;
    this.#endSecuring();
    this.#client.destroy();
  }

  // --- the client's side ---

  #listen(client: Socket): void {
    client.on('data', this.#onData).on('end', this.#onEnd).on('drain', this.#onDrain).on('error', this.#onError);
  }

  #startTls(answer: Uint8Array, received: Buffer): void {
    const client = this.#client;
    const { handshakeMsMax } = nbdLimits;
    this.#securing = setTimeout(() => this.destroy(`no handshake within ${handshakeMsMax} ms`), handshakeMsMax);
    this.#dropWorker();
    clearTimeout(this.#timer);
    client.pause().off('data', this.#onData).off('end', this.#onEnd).off('drain', this.#onDrain);
    this.#flushClient();
    // Only when it is out may encrypted bytes follow.
    client.write(answer, (error) => {
      if (error || this.#isClosing) return;
      upgradeToTls(client, this.#shared.tls!.credentials.options, received, {
        established: (secured) => this.#secured(secured),
        failed: (reason) => this.#failedTls(reason),
      });
    });
  }

  /** Told after the socket is closed, unless it is still to be. Of what we have ended ourselves another line tells. */
  #failedTls(reason: string): void {
    if (this.#securing === undefined) return;
    this.#endSecuring();
    this.#log('warn', `disconnected: the TLS handshake failed: ${reason}`);
    this.#isClosing = true;
    this.#client.destroy();
  }

  #endSecuring(): void {
    clearTimeout(this.#securing);
    this.#securing = undefined;
  }

  #secured(client: Socket): void {
    if (this.#securing === undefined) return;
    this.#endSecuring();
    this.#client = client;
    this.#listen(client);
    this.#handshake.secured();
    if (this.#workerPath === undefined) this.#steer();
    else this.attach(this.#workerPath);
  }

  #receiveFromClient(chunk: Buffer): void {
    if (this.#isClosing) return;
    if (this.#transmission === undefined) this.#handshake.receiveFromClient(chunk);
    else this.#transmission.requests.receive(chunk);
    this.#flush();
  }

  #endInput(): void {
    this.#inputEnded = true;
    this.#flush();
  }

  /** Room has come for a request that waits. */
  #retry(): void {
    this.#transmission?.requests.pump();
    this.#flush();
  }

  #clientGone(): void {
    this.#clientClosed = true;
    this.#isClosing = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#securing);
    // The worker finishes what it has begun, and closes; until then the right to write is held.
    if (this.#worker !== undefined && this.#isForwarding) this.#worker.end().resume();
    else this.#finish();
  }

  // --- the worker's side ---

  #receiveFromWorker(chunk: Buffer): void {
    if (this.#clientClosed) return;
    const replay = this.#replay;
    if (replay !== undefined) {
      this.#compare(replay, chunk);
      return;
    }
    this.#shared.served();
    if (this.#transmission === undefined) this.#handshake.receiveFromWorker(chunk);
    else this.#transmission.replies.receive(chunk);
    this.#flush();
  }

  /** A new worker must say what the last one said. */
  #compare(replay: Replay, chunk: Buffer): void {
    const end = replay.matchedBytes + chunk.length;
    const isSame = end <= replay.expect.length && chunk.equals(replay.expect.subarray(replay.matchedBytes, end));
    replay.matchedBytes = end;
    if (!isSame) this.destroy('the new worker did not answer as the last one had: it may have another disk');
    else if (end === replay.expect.length) void this.#resume(this.#worker!);
  }

  /** Makes sure that the name still means the same device, and asks for what is unanswered. Never rejects. */
  async #resume(worker: Socket): Promise<void> {
    const { chosen } = this.#handshake;
    if (chosen !== undefined) {
      const device = await this.#shared.identify(chosen.name);
      if (this.#worker !== worker || this.#isClosing) return;
      if (device?.deviceId !== chosen.device.deviceId || device.readOnly !== chosen.device.readOnly) {
        this.destroy(`"${chosen.name}" is another disk by now`);
        return;
      }
    }
    if (!this.#unanswered.allReplayable) {
      this.destroy('the worker died while a request came in that is too large to be sent again');
      return;
    }
    this.#replay = undefined;
    this.#isForwarding = true;
    if (this.#transmission === undefined) this.#handshake.resume();
    else this.#toWorker.push(...this.#transmission.requests.replay());
    this.#flush();
  }

  /** The worker has closed the connection, of its own will or because it dies. */
  #workerClosed(): void {
    const { isStopping, limits } = this.#shared;
    const requests = this.#transmission?.requests;
    const isAnswered = this.#unanswered.count === 0 && (this.#inputEnded || requests?.isOver === true);
    this.#dropWorker();
    if (this.#clientClosed) this.#finish();
    else if (isStopping || isAnswered || this.#handshake.mayBeClosed) this.#close('the worker has closed it');
    else this.#timer = setTimeout(() => this.#close('the worker has closed it'), limits.orphanedMsMax);
  }

  #dropWorker(): void {
    const worker = this.#worker;
    this.#worker = undefined;
    this.#isForwarding = false;
    this.#replay = undefined;
    this.#toWorker = [];
    this.#transmission?.replies.reset();
    worker?.destroy();
  }

  // --- both ---

  #enter(style: ReplyStyle, rest: Buffer): void {
    const host = {
      breach: (message: string) => this.destroy(message),
      forward: (bytes: Buffer) => this.#sendWorker(bytes),
    };
    const toClient = { breach: host.breach, forward: (bytes: Buffer) => void this.#toClient.push(bytes) };
    const requests = new RequestRelay(host, this.#unanswered, style === 'extended');
    this.#transmission = { requests, replies: new ReplyRelay(toClient, this.#unanswered) };
    this.#log('info', `attached to "${this.#handshake.chosen?.device.name}"`);
    if (rest.length > 0) requests.receive(rest);
  }

  #sendWorker(bytes: Uint8Array): void {
    if (this.#isForwarding) this.#toWorker.push(bytes);
  }

  /** Sends what a wake-up has brought, each side's under one cork, and reads on where that is possible. */
  #flush(): void {
    if (this.#toClient.length > 0) {
      const pieces = this.#toClient;
      this.#toClient = [];
      if (!this.#client.destroyed) writeAll(this.#client, pieces);
    }
    const worker = this.#worker;
    if (worker !== undefined && this.#toWorker.length > 0) {
      const pieces = this.#toWorker;
      this.#toWorker = [];
      writeAll(worker, pieces);
    }
    this.#passOnEnd();
    this.#steer();
  }

  /** A client that sends nothing more: the worker hears of it behind the last request. */
  #passOnEnd(): void {
    if (!this.#inputEnded || !this.#isForwarding || this.#worker?.writableEnded !== false) return;
    const isWorkedOff =
      this.#transmission === undefined ? this.#handshake.isStarved : !this.#transmission.requests.isStalled;
    if (isWorkedOff) this.#worker.end();
  }

  /** Reads from each socket as long as what it says can be passed on, or kept. */
  #steer(): void {
    if (this.#securing !== undefined) return;
    const { unsentBytesMax } = this.#shared.limits;
    const worker = this.#worker;
    const isBehind = worker !== undefined && this.#isForwarding && worker.writableLength > unsentBytesMax;
    // In the handshake, only while a worker listens: what is said during a replay would come in between.
    const hasRoom =
      this.#transmission === undefined
        ? this.#isForwarding && this.#handshake.wantsInput
        : !this.#transmission.requests.isStalled;
    setReading(this.#client, this.#isClosing || (hasRoom && !isBehind));
    if (worker !== undefined) setReading(worker, this.#clientClosed || this.#client.writableLength <= unsentBytesMax);
  }

  /** Ends the connection once what was sent to the client is out, and waits a little for it to close too. */
  #close(reason: string): void {
    if (this.#isClosing) return;
    if (this.#securing !== undefined) {
      this.destroy(reason);
      return;
    }
    this.#flushClient();
    this.#isClosing = true;
    this.#log('debug', `closing: ${reason}`);
    this.#worker?.end();
    this.#client.resume();
    clearTimeout(this.#timer);
    // Closing on unread bytes would reset the connection, and could take the last replies with it.
    this.#client.end(() => {
      if (!this.#clientClosed) this.#timer = setTimeout(() => this.#client.destroy(), nbdLimits.lingerMsMax);
    });
  }

  #flushClient(): void {
    if (this.#toClient.length === 0 || this.#client.destroyed) return;
    writeAll(this.#client, this.#toClient);
    this.#toClient = [];
  }

  #finish(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    clearTimeout(this.#timer);
    this.#dropWorker();
    this.#handshake.release();
    this.#unanswered.clear();
    this.#done();
  }

  #log(level: 'debug' | 'info' | 'warn', message: string): void {
    this.#shared.log[level]({ client: this.#peer.text, export: this.#handshake.chosen?.device.name }, message);
  }
}

/** One system call, if the socket takes it. */
function writeAll(socket: Socket, pieces: readonly Uint8Array[]): void {
  if (pieces.length === 1) {
    socket.write(pieces[0]!);
    return;
  }
  socket.cork();
  for (const piece of pieces) socket.write(piece);
  socket.uncork();
}

function setReading(socket: Socket, isReading: boolean): void {
  if (socket.isPaused() !== isReading) return;
  if (isReading) socket.resume();
  else socket.pause();
}
