/**
 * The transmission phase of one connection: requests from the inbox to the device, replies to the host, in the order
 * in which the device settles them. Knows no socket.
 *
 *   header -> room -> payload -> (device) -> header      a request that is carried out; no payload: straight on
 *               |
 *               +---> drain -> (refused) -> header       a refused one: its payload is thrown away
 *   any -> ended                                         DISC, end of input, breach, the connection lost
 *
 * `room` is where back-pressure happens: the request waits there until the in-flight account admits it, and nothing
 * behind it is parsed. A request counts as in flight from there until its reply has been written out, so a client that
 * does not read its replies stops being read from.
 */
import { setMaxListeners } from 'node:events';
import { ProtocolError } from '../core/errors.ts';
import type { ExportLease } from '../core/export-catalog.ts';
import type { ExportDevice } from '../core/export-device.ts';
import type { Log } from '../core/log.ts';
import { StoppedError } from '../core/stop.ts';
import type { NbdCounters } from './counters.ts';
import { describeError, errnoOf, isBug } from './errno.ts';
import { Flight } from './flight.ts';
import type { FramePool } from './frame-pool.ts';
import type { Session } from './handshake.ts';
import { type InFlight, InFlightAccount } from './in-flight.ts';
import type { Inbox } from './inbox.ts';
import type { NbdLimits } from './limits.ts';
import type { NamedDamage } from './named-damage.ts';
import { blockStatus, perform } from './perform.ts';
import { commandFlags, commands, nameOf, transmissionFlags } from './protocol.ts';
import { encodeError, sealData, sealDone, statusChunkBytes } from './reply.ts';
import {
  allowedCommandFlags,
  type RequestRefusal,
  type RequestRules,
  type RequestStream,
  requestBytes,
  shutdownRefusal,
  takeRequest,
  validate,
} from './request.ts';

const none = Buffer.alloc(0);

/** What a transmission shares with all others of its server. */
export interface TransmissionShared {
  readonly limits: NbdLimits;
  readonly minimumBlock: number;
  readonly inFlight: InFlight;
  readonly frames: FramePool;
  readonly counters: NbdCounters;
  readonly named: NamedDamage;
}

/** What a transmission needs from its connection. */
export interface TransmissionHost {
  readonly log: Log;
  /** Sends a reply. Once it is written out, the host gives the flight back with `sent`; `bytes` stay untouched until then. */
  send(bytes: Buffer, flight: Flight): void;
  /** The client broke the protocol: the connection is to be closed at once. */
  breach(error: ProtocolError): void;
  /** No request will come any more and none is in flight. Called once. */
  finished(): void;
  /** Asked to go on after a wait: calls `pump`, and reads on from the socket if that helped. */
  retry(): void;
  /** A bug showed: nothing more may be answered. */
  bug(error: unknown): void;
}

export class Transmission {
  readonly #shared: TransmissionShared;
  readonly #host: TransmissionHost;
  readonly #session: Session;
  readonly #inbox: Inbox;
  readonly #device: ExportDevice;
  readonly #exportName: string;
  readonly #rules: RequestRules;
  /** How to read headers. */
  readonly #stream: RequestStream;
  readonly #account: InFlightAccount;
  /** Flights to use again. */
  readonly #idle: Flight[] = [];

  #stage: 'header' | 'room' | 'payload' | 'drain' | 'ended' = 'header';
  /** The request that `#stage` is about. */
  #current: Flight;
  #refusal: RequestRefusal | undefined;
  #payloadLeft = 0;
  #pumping = false;
  #inputEnded = false;
  #drainingServer = false;
  /** The connection is gone: replies go nowhere. */
  #lost = false;
  #finished = false;
  /** A payload is gathered in the frame that its reply leaves in: megabytes that are used again. */
  readonly #payloadRoom = () => {
    this.#current.frame = this.#shared.frames.take(this.#payloadLeft);
    return this.#current.frame.data(this.#payloadLeft);
  };
  /** Stops what the device reads for a client that is gone. */
  readonly #stop = new AbortController();
  readonly #whileConnected = { signal: this.#stop.signal };

  constructor(
    shared: TransmissionShared,
    host: TransmissionHost,
    { session, lease, inbox }: { session: Session; lease: ExportLease; inbox: Inbox },
  ) {
    this.#shared = shared;
    this.#host = host;
    this.#session = session;
    this.#inbox = inbox;
    this.#device = lease.device;
    this.#exportName = lease.name;
    this.#rules = {
      sizeBytes: lease.device.sizeBytes,
      readOnly: (session.transmissionFlags & transmissionFlags.NBD_FLAG_READ_ONLY) !== 0,
      extended: session.style === 'extended',
      payloadBytesMax: shared.limits.payloadBytesMax,
      minimumBlock: shared.minimumBlock,
      contextCount: session.contexts.length,
      allowedFlags: allowedCommandFlags(session.transmissionFlags, session.contexts.length),
    };
    this.#stream = { extended: this.#rules.extended, payloadBytesMax: shared.limits.drainedPayloadBytesMax };
    setMaxListeners(0, this.#stop.signal); // One for each chunk that a READ waits for.
    this.#account = new InFlightAccount(shared.inFlight, () => host.retry());
    this.#current = new Flight(this);
  }

  /** Requests that have no reply yet, or one that is not written out. */
  get inFlight(): number {
    return this.#account.requests;
  }

  /** Whether the host has been told so. */
  get isFinished(): boolean {
    return this.#finished;
  }

  /** Works off what is in the inbox, as far as input and room reach. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#step());
    } finally {
      this.#pumping = false;
    }
    this.#finishIfQuiet();
  }

  /** No more input will come; what is in the inbox still counts. */
  endInput(): void {
    this.#inputEnded = true;
    this.pump();
  }

  /** The server goes down: what has been admitted is finished, everything else refused with NBD_ESHUTDOWN, and then it ends. */
  drain(): void {
    this.#drainingServer = true;
    if (this.#stage === 'room' && this.#refusal === undefined) this.#refusal = shutdownRefusal;
    this.pump();
  }

  /** The connection is gone. What the device works on is waited for; `finished` follows. */
  lose(): void {
    this.#lost = true;
    this.#stop.abort(new StoppedError('the client is gone'));
    this.#end();
    this.#finishIfQuiet();
  }

  /** The host has written out the replies of these flights. */
  sent(flights: readonly Flight[]): void {
    for (const flight of flights) this.#release(flight);
    this.pump();
  }

  /** For Flight: the device has done what was asked. */
  settle(flight: Flight): void {
    try {
      this.#countSuccess(flight);
      if (flight.frame === undefined) flight.frame = this.#shared.frames.take(0);
      const { style } = this.#session;
      const isRead = flight.type === commands.NBD_CMD_READ;
      this.#reply(flight, isRead ? sealData(flight.frame, style, flight) : sealDone(flight.frame, style, flight));
    } catch (error) {
      this.#host.bug(error);
    }
  }

  /** For Flight: the device could not. */
  fail(flight: Flight, error: unknown): void {
    if (this.#lost && error instanceof StoppedError) {
      this.#release(flight);
      this.#finishIfQuiet();
      return;
    }
    this.#shared.counters.errors++;
    if (isBug(error)) {
      this.#host.bug(error);
      this.#release(flight);
      this.#finishIfQuiet();
      return;
    }
    const errno = errnoOf(error);
    this.#countErrno(errno);
    const command = nameOf(commands, flight.type);
    // A kernel asks again for every page of what it could not read: damage is named once, and then only where all is logged.
    const level = this.#shared.named.isNew(error) ? 'error' : 'debug';
    this.#host.log[level](
      {
        export: this.#exportName,
        command,
        offset: flight.offset,
        length: flight.length,
        errno,
        error: describeError(error),
      },
      `${command} failed: ${error instanceof Error ? error.message : String(error)}`,
    );
    this.#reply(
      flight,
      encodeError(this.#session.style, flight, {
        errno,
        message: 'the export could not do it: see the log of the server',
      }),
    );
  }

  /** One step of the machine at the head of this file; false if it cannot go on for now. */
  #step(): boolean {
    switch (this.#stage) {
      case 'header':
        return this.#readHeader();
      case 'room':
        return this.#askForRoom();
      case 'payload': {
        if (!this.#inbox.take(this.#payloadLeft, this.#payloadRoom)) return this.#starve();
        const payload = this.#inbox.view(this.#payloadLeft);
        this.#stage = 'header';
        this.#start(this.#current, payload);
        return true;
      }
      case 'drain':
        this.#payloadLeft -= this.#inbox.skip(this.#payloadLeft);
        if (this.#payloadLeft > 0) return this.#starve();
        this.#stage = 'header';
        this.#refuse(this.#current, this.#refusal!);
        return true;
      case 'ended':
        return false;
    }
  }

  #readHeader(): boolean {
    const { extended } = this.#rules;
    if (!this.#inbox.take(requestBytes(extended))) return this.#starve();
    const flight = this.#idle.pop() ?? new Flight(this);
    this.#current = flight;
    const payload = takeRequest(this.#inbox.source, this.#inbox.offset, flight, this.#stream);
    if (typeof payload === 'string') return this.#breach(payload);
    if (flight.type === commands.NBD_CMD_DISC) {
      this.#end();
      return false;
    }
    this.#shared.counters.requests++;
    flight.startedMs = performance.now();
    this.#payloadLeft = payload;
    this.#refusal = this.#drainingServer ? shutdownRefusal : validate(flight, this.#rules);
    this.#stage = 'room';
    return true;
  }

  #askForRoom(): boolean {
    const flight = this.#current;
    const refused = this.#refusal !== undefined;
    const bytes = refused ? 0 : this.#chargeFor(flight);
    if (!this.#account.take(bytes)) return false;
    flight.chargedBytes = bytes;
    if (this.#payloadLeft > 0) {
      this.#stage = refused ? 'drain' : 'payload';
      return true;
    }
    this.#stage = 'header';
    if (refused) this.#refuse(flight, this.#refusal!);
    else this.#start(flight, none);
    return true;
  }

  /** Payload bytes that a request keeps in memory, in either direction. */
  #chargeFor({ type, length }: Flight): number {
    if (type === commands.NBD_CMD_READ || type === commands.NBD_CMD_WRITE) return length;
    if (type !== commands.NBD_CMD_BLOCK_STATUS) return 0;
    return this.#session.contexts.length * statusChunkBytes(this.#shared.limits.statusExtentsMax);
  }

  #start(flight: Flight, payload: Buffer): void {
    if (flight.type === commands.NBD_CMD_BLOCK_STATUS) {
      this.#blockStatus(flight, payload).catch(flight.failed);
      return;
    }
    const isRead = flight.type === commands.NBD_CMD_READ;
    if (isRead) flight.frame = this.#shared.frames.take(flight.length);
    if (flight.length === 0 && flight.type !== commands.NBD_CMD_FLUSH) {
      this.settle(flight); // Nothing to do is done: "a server SHOULD NOT disconnect".
      return;
    }
    const data = isRead ? flight.frame!.data(flight.length) : payload;
    let settled: Promise<void> | undefined;
    try {
      if (!this.#performNow(flight, data)) settled = perform(this.#device, flight, data, this.#whileConnected);
    } catch (error) {
      this.fail(flight, error);
      return;
    }
    if (settled === undefined) this.settle(flight);
    else settled.then(flight.settled, flight.failed);
  }

  /**
   * Carries out a request in the turn it came in: a READ if all of it is in memory, or a short one on a disk that is prompt;
   * a short WRITE where the device takes it so.
   */
  #performNow({ type, flags, offset, length }: Flight, data: Buffer): boolean {
    const { readNowBytesMax, readDiskNowBytesMax, writeNowBytesMax } = this.#shared.limits;
    if (type === commands.NBD_CMD_READ) {
      if (length > readNowBytesMax) return false;
      return this.#device.readNow?.(offset, data, length <= readDiskNowBytesMax ? 'disk' : 'memory') === true;
    }
    if (type !== commands.NBD_CMD_WRITE || length > writeNowBytesMax) return false;
    return (flags & commandFlags.NBD_CMD_FLAG_FUA) === 0 && this.#device.writeNow?.(offset, data) === true;
  }

  async #blockStatus(flight: Flight, payload: Buffer): Promise<void> {
    const answer = await blockStatus(this.#device, flight, payload, {
      session: this.#session,
      rules: this.#rules,
      extentsMax: this.#shared.limits.statusExtentsMax,
    });
    if ('errno' in answer) this.#refuse(flight, answer);
    else this.#reply(flight, answer);
  }

  #refuse(flight: Flight, refusal: RequestRefusal): void {
    this.#shared.counters.requestsRefused++;
    this.#countErrno(refusal.errno);
    this.#reply(flight, encodeError(this.#session.style, flight, refusal));
  }

  #reply(flight: Flight, bytes: Buffer): void {
    this.#shared.counters.latencies[flight.type]?.observeMs(performance.now() - flight.startedMs);
    if (!this.#lost) {
      this.#host.send(bytes, flight);
      return;
    }
    this.#release(flight);
    this.#finishIfQuiet();
  }

  /** The request is over: what it took is free again. */
  #release(flight: Flight): void {
    if (flight.frame !== undefined) this.#shared.frames.give(flight.frame);
    flight.frame = undefined;
    this.#idle.push(flight);
    this.#account.give(flight.chargedBytes);
  }

  /** Input is missing: wait for it, unless none will come or the server, going down, has nothing left to answer here. */
  #starve(): false {
    const betweenRequests = this.#stage === 'header' && !this.#inbox.midPiece;
    const drained = this.#drainingServer && betweenRequests && this.#account.requests === 0;
    if (this.#inputEnded || drained) this.#end();
    return false;
  }

  #breach(message: string): false {
    this.#end();
    this.#host.breach(new ProtocolError(message));
    return false;
  }

  /** Nothing more is parsed. */
  #end(): void {
    // A request that was admitted and whose payload never came.
    if (this.#stage === 'payload' || this.#stage === 'drain') this.#release(this.#current);
    this.#stage = 'ended';
    this.#account.leave();
  }

  #finishIfQuiet(): void {
    if (this.#stage !== 'ended' || this.#account.requests > 0 || this.#finished) return;
    this.#finished = true;
    this.#host.finished();
  }

  #countSuccess({ type, length }: Flight): void {
    const { counters } = this.#shared;
    if (type === commands.NBD_CMD_READ) counters.bytesRead += length;
    else if (type === commands.NBD_CMD_WRITE) counters.bytesWritten += length;
    else if (type === commands.NBD_CMD_TRIM) counters.bytesTrimmed += length;
    else if (type === commands.NBD_CMD_WRITE_ZEROES) counters.bytesZeroed += length;
  }

  #countErrno(errno: number): void {
    const { byErrno } = this.#shared.counters;
    byErrno.set(errno, (byErrno.get(errno) ?? 0) + 1);
  }
}
