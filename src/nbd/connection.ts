/**
 * One client's socket, the only place that touches it: bytes in, bytes out, and the end.
 *
 *   haggling -> transmission -> lingering -> closed
 *     |  ^ |                        |
 *     |  | +------------------------+   every state leads to closed when the socket fails
 *   securing                            the TLS handshake; afterwards bytes go through the socket around the first one
 *
 * Sockets allow half-open use: a client may shut down its sending side and still gets its replies. When the server is
 * done it shuts down its own side and lingers: bytes that come then are thrown away until the client closes too, since
 * closing on unread bytes would reset the connection and could take the last replies with it.
 */
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { ProtocolError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { Flight } from './flight.ts';
import { closeWhenClientIsGone } from './gone-client.ts';
import { type Attachment, Haggling, type HagglingHost, type HagglingShared } from './haggling.ts';
import { greeting, type Session } from './handshake.ts';
import { Inbox } from './inbox.ts';
import { Outbox } from './outbox.ts';
import type { TlsCredentials } from './tls-credentials.ts';
import { upgradeToTls } from './tls-upgrade.ts';
import { Transmission, type TransmissionHost, type TransmissionShared } from './transmission.ts';
import type { Peer } from './writers.ts';

export interface ConnectionShared extends HagglingShared, TransmissionShared {
  readonly log: Log;
  /** A bug showed: stop serving. */
  bug(error: unknown): void;
}

export class Connection implements HagglingHost, TransmissionHost {
  readonly log: Log;
  readonly peer: Peer;
  readonly #shared: ConnectionShared;
  /** The one that was accepted, or its encrypted self. */
  #socket: Socket;
  /** Called once, when the socket is closed and nothing of the connection is in flight. */
  readonly #done: () => void;
  readonly #inbox = new Inbox();
  #outbox: Outbox | undefined;
  readonly #haggling: Haggling;
  #transmission: Transmission | undefined;
  #attachment: Attachment | undefined;
  #lingering: NodeJS.Timeout | undefined;
  #inputEnded = false;
  #isSecuring = false;
  #closing = false;
  #socketClosed = false;
  readonly #onData = (chunk: Buffer) => this.#receive(chunk);
  readonly #onEnd = () => this.#endInput();
  readonly #onDrain = () => this.#caughtUp();
  readonly #onError = (error: Error) => {
    this.log.debug({ error: error.message }, 'the connection failed');
    // Node leaves a socket open whose TLS has failed.
    this.#socket.destroy();
  };

  constructor(shared: ConnectionShared, socket: Socket, { peer, done }: { peer: Peer; done: () => void }) {
    this.#shared = shared;
    this.#socket = socket;
    this.peer = peer;
    this.#done = done;
    this.log = withPeer(shared.log, peer);
    this.#haggling = new Haggling(shared, this, this.#inbox);
    this.#listen(socket);
    // Also for its encrypted self, which closes it.
    socket.on('close', () => this.#closed());
    socket.write(greeting());
  }

  /** Serves nobody: its client is still to go on with the handshake, or to close after we did. Can be spared for another. */
  get isExpendable(): boolean {
    return !this.#socket.destroyed && (this.#closing || this.#haggling.waitsForClient);
  }

  /** The device the client is attached to, as its lease calls it. */
  get deviceId(): string | undefined {
    return this.#attachment?.lease.deviceId;
  }

  /** performance.now() since when the client has read none of the replies it is owed; undefined if it is owed none. */
  get unreadSinceMs(): number | undefined {
    return this.#outbox?.waitingSinceMs;
  }

  /** Finishes what is in flight, refuses the rest and closes. */
  drain(): void {
    if (this.#transmission === undefined) this.#haggling.drain();
    else this.#transmission.drain();
    this.readOn();
  }

  /** Closes now; what was not written out is lost. */
  destroy(reason: string): void {
    if (!this.#socketClosed) this.log.info({}, `disconnected: ${reason}`);
    this.#closing = true;
    this.#isSecuring = false;
    this.#socket.destroy();
  }

  // --- HagglingHost and TransmissionHost ---

  sendReplies(replies: readonly Uint8Array[]): boolean {
    this.#socket.cork();
    for (const reply of replies) this.#socket.write(reply);
    this.#socket.uncork();
    return !this.#socket.writableNeedDrain;
  }

  send(bytes: Buffer, flight: Flight): void {
    this.#outbox!.send(bytes, flight);
  }

  startTls(replies: readonly Uint8Array[], credentials: TlsCredentials): void {
    const socket = this.#socket;
    this.#isSecuring = true;
    socket.pause().off('data', this.#onData).off('end', this.#onEnd).off('drain', this.#onDrain);
    // Only when they are out may encrypted bytes follow.
    socket.write(Buffer.concat(replies), (error) => {
      if (error || this.#closing) return;
      upgradeToTls(socket, credentials.options, this.#inbox.takeRest(), {
        established: (secured) => this.#secured(secured),
        failed: (reason) => this.#failedTls(reason),
      });
    });
  }

  enter(session: Session, attachment: Attachment): void {
    const { lease } = attachment;
    this.#outbox = new Outbox(this.#socket, (flights) => this.#sent(flights));
    this.#attachment = attachment;
    this.log.info(
      { export: lease.name, style: session.style, readOnly: lease.readOnly, tls: protocolOf(this.#socket) },
      `attached to "${lease.name}"`,
    );
    this.#transmission = new Transmission(this.#shared, this, { session, lease, inbox: this.#inbox });
    closeWhenClientIsGone(this.#socket, () => this.#transmission!.inFlight > 0);
    const { idleMsMax } = this.#shared.limits;
    if (idleMsMax > 0) this.#socket.setTimeout(idleMsMax, () => this.#idle());
    if (this.#inputEnded) this.#transmission.endInput();
    this.retry();
  }

  close(reason: string): void {
    if (this.#closing) return;
    this.#closing = true;
    this.log.debug({}, `closing: ${reason}`);
    this.#inbox.clear();
    if (this.#isSecuring) {
      this.#isSecuring = false;
      this.#socket.destroy();
      return;
    }
    this.#socket.resume();
    this.#socket.end();
    this.#lingering = setTimeout(() => this.#socket.destroy(), this.#shared.limits.lingerMsMax);
  }

  breach(error: ProtocolError): void {
    this.#shared.counters.connectionsRefused++;
    this.log.warn({ code: error.code }, `disconnected: ${error.message}; is the client speaking NBD (fixed newstyle)?`);
    // Replies to what came before still go out; a transmission out of step is not worth that.
    if (this.#transmission === undefined) this.close(error.message);
    else this.#socket.destroy();
  }

  finished(): void {
    this.#attachment?.release();
    if (this.#socketClosed) this.#done();
    else this.close('all requests are answered');
  }

  retry(): void {
    this.#transmission?.pump();
    this.readOn();
  }

  readOn(): void {
    if (this.#socket.isPaused() && (this.#closing || this.#inbox.pendingBytes === 0)) this.#socket.resume();
  }

  bug(error: unknown): void {
    this.#shared.bug(error);
  }

  // --- the socket ---

  #listen(socket: Socket): void {
    socket.on('data', this.#onData).on('end', this.#onEnd).on('drain', this.#onDrain).on('error', this.#onError);
  }

  #secured(socket: TLSSocket): void {
    if (!this.#isSecuring) return;
    this.#isSecuring = false;
    this.#socket = socket;
    this.#listen(socket);
    this.#haggling.secured();
  }

  /** Told after the socket is closed, unless it is still to be. Of what we have ended ourselves another line tells. */
  #failedTls(reason: string): void {
    if (!this.#isSecuring) return;
    this.#isSecuring = false;
    this.#closing = true;
    this.#shared.counters.connectionsRefused++;
    this.log.warn({}, `disconnected: the TLS handshake failed: ${reason}`);
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    if (this.#closing) return;
    this.#inbox.push(chunk);
    this.#outbox?.hold();
    try {
      if (this.#transmission === undefined) this.#haggling.pump();
      else this.#transmission.pump();
    } finally {
      this.#outbox?.letGo();
    }
    if (this.#closing) this.#inbox.clear();
    else if (this.#inbox.pendingBytes > 0) {
      this.#inbox.keep();
      this.#socket.pause();
    }
  }

  /** The socket has sent all it was given: in the handshake, the next option may be answered. */
  #caughtUp(): void {
    if (this.#transmission !== undefined || this.#closing) return;
    this.#haggling.catchUp();
    this.readOn();
  }

  #endInput(): void {
    this.#inputEnded = true;
    if (this.#closing) return;
    if (this.#transmission === undefined) this.#haggling.endInput();
    else this.#transmission.endInput();
  }

  #sent(flights: readonly Flight[]): void {
    this.#transmission?.sent(flights);
    if (!this.#socketClosed) this.readOn();
  }

  #idle(): void {
    // What the device works on is waited for; a client that reads none of its replies is idle as well.
    const isQuiet = this.#transmission?.inFlight === 0 || this.unreadSinceMs !== undefined;
    if (isQuiet) this.destroy(`nothing was asked or read for ${this.#shared.limits.idleMsMax} ms`);
  }

  #closed(): void {
    this.#socketClosed = true;
    this.#closing = true;
    clearTimeout(this.#lingering);
    this.#haggling.stop();
    this.#inbox.clear();
    if (this.#transmission === undefined) {
      this.#done();
      return;
    }
    const wasFinished = this.#transmission.isFinished;
    this.#transmission.lose();
    this.#outbox?.close();
    if (wasFinished) this.#done();
  }
}

/** `TLSv1.3`; undefined without TLS. */
function protocolOf(socket: Socket): string | undefined {
  return (socket instanceof TLSSocket && socket.getProtocol()) || undefined;
}

/** A log whose lines name the client. */
function withPeer(log: Log, peer: Peer): Log {
  const add = (fields: object) => ({ client: peer.text, ...fields });
  return {
    debug: (fields, message) => log.debug(add(fields), message),
    info: (fields, message) => log.info(add(fields), message),
    warn: (fields, message) => log.warn(add(fields), message),
    error: (fields, message) => log.error(add(fields), message),
  };
}
