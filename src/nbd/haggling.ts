/**
 * The handshake of one connection: bytes from the inbox to the pure decisions of handshake.ts, and the look-ups these
 * ask for. Knows no socket.
 *
 *   flags -> header -> data -> (decide) -> header        an option; no data: straight on
 *              |         |        |
 *              |         |        +-> asking -> header   the catalog is asked; nothing is parsed meanwhile
 *              +-> skip -+                               too much data: thrown away, NBD_REP_ERR_TOO_BIG
 *                        +-> securing -> header          the TLS handshake; what comes belongs to it
 *   any -> over                                          transmission, or the connection closes
 */
import { CorruptStoreError, OverlayError, ProtocolError, StoreUnavailableError, UserError } from '../core/errors.ts';
import type { ExportCatalog, ExportLease } from '../core/export-catalog.ts';
import type { ExportDevice } from '../core/export-device.ts';
import type { Log } from '../core/log.ts';
import { describeError, isBug } from './errno.ts';
import {
  type Answer,
  begin,
  decide,
  type ExportFacts,
  type HaggleState,
  type Question,
  type Refusal,
  refusals,
  refuse,
  refuseTooBig,
  type Session,
} from './handshake.ts';
import type { Inbox } from './inbox.ts';
import type { NbdLimits } from './limits.ts';
import { contextsOf } from './meta-context.ts';
import { IHAVEOPT, nameOf, nbdClientFlags, nbdOption, optionReplies, options } from './protocol.ts';
import type { TlsCredentials, TlsTerms } from './tls-credentials.ts';
import type { Peer, WriterHold, Writers } from './writers.ts';

/** What a handshake shares with all others of its server. */
export interface HagglingShared {
  readonly catalog: ExportCatalog;
  /** Undefined: any number of clients may write. */
  readonly writers: Writers | undefined;
  readonly limits: NbdLimits;
  readonly minimumBlock: number;
  /** Undefined: no TLS. */
  readonly tls: TlsTerms | undefined;
}

/** What a handshake needs from its connection. */
export interface HagglingHost {
  readonly log: Log;
  readonly peer: Peer;
  /** Sends replies. False: the client reads them too slowly; call `catchUp` when it has read them. */
  sendReplies(replies: readonly Uint8Array[]): boolean;
  /** Sends replies; behind them the TLS handshake begins, with what is left in the inbox. Then `secured`, or the connection closes. */
  startTls(replies: readonly Uint8Array[], credentials: TlsCredentials): void;
  /** The client has an export: `attachment` is the connection's to release. */
  enter(session: Session, attachment: Attachment): void;
  /** The connection is to be closed, once what was sent is out. */
  close(reason: string): void;
  /** The client broke the protocol or a limit: the connection is to be closed. */
  breach(error: ProtocolError): void;
  /** An answer that was waited for is out: reads from the client again, once all that came has been parsed. */
  readOn(): void;
  bug(error: unknown): void;
}

/** An export in the hands of a connection. */
export interface Attachment {
  readonly lease: ExportLease;
  /** Gives back the lease and the right to write. Idempotent. */
  release(): void;
}

export class Haggling {
  readonly #shared: HagglingShared;
  readonly #host: HagglingHost;
  readonly #inbox: Inbox;

  #stage: 'flags' | 'header' | 'data' | 'skip' | 'asking' | 'securing' | 'over' = 'flags';
  #state: HaggleState | undefined;
  #option = 0;
  #dataLeft = 0;
  #optionBytes = 0;
  #optionCount = 0;
  #receivedBytes = 0;
  #clogged = false;
  #inputEnded = false;
  #drainingServer = false;
  /** Milliseconds the client has left for its side; the clock stands while the server looks something up. */
  #clientMsLeft: number;
  #clock: NodeJS.Timeout | undefined;
  #clockStartedMs = 0;

  constructor(shared: HagglingShared, host: HagglingHost, inbox: Inbox) {
    this.#shared = shared;
    this.#host = host;
    this.#inbox = inbox;
    this.#clientMsLeft = shared.limits.handshakeMsMax;
    this.#startClock();
  }

  /** Whether the next move is the client's. */
  get waitsForClient(): boolean {
    return this.#stage !== 'asking' && this.#stage !== 'over';
  }

  /** Works off what is in the inbox, as far as it reaches, and as the client reads the answers. */
  pump(): void {
    while (!this.#clogged && this.#step());
    // A client may have shut down its sending side; once all it sent is answered there is nothing to wait for.
    if (this.#inputEnded && !this.#clogged && this.waitsForClient) this.#close('the client closed the connection');
  }

  /** The TLS handshake is done: options begin anew. */
  secured(): void {
    if (this.#stage !== 'securing') return;
    this.#stage = 'header';
    this.pump();
  }

  /** The client has read what made `sendReplies` say no. */
  catchUp(): void {
    this.#clogged = false;
    this.pump();
  }

  /** The client will send nothing more; what is in the inbox still counts. */
  endInput(): void {
    this.#inputEnded = true;
    this.pump();
  }

  /** The server goes down: a client in the middle of an answer gets it, the others are let go at once. */
  drain(): void {
    this.#drainingServer = true;
    if (this.waitsForClient) this.#close('the server is shutting down');
  }

  /** The connection is gone, or has been let go: nothing more is parsed or sent. */
  stop(): void {
    this.#stage = 'over';
    this.#stopClock();
  }

  #step(): boolean {
    switch (this.#stage) {
      case 'flags':
        return this.#readFlags();
      case 'header':
        return this.#readHeader();
      case 'data':
        return this.#readData();
      case 'skip':
        this.#dataLeft -= this.#inbox.skip(this.#dataLeft);
        if (this.#dataLeft > 0) return false;
        this.#apply(refuseTooBig(this.#state!, this.#option, this.#optionBytes));
        return true;
      case 'asking':
      case 'securing':
      case 'over':
        return false;
    }
  }

  #readFlags(): boolean {
    if (!this.#inbox.take(nbdClientFlags.sizeBytes)) return false;
    const { flags } = nbdClientFlags.read(this.#inbox.source, this.#inbox.offset);
    const { tls } = this.#shared;
    this.#state = begin(flags, tls === undefined ? 'off' : tls.required ? 'required' : 'offered');
    if (this.#state === undefined)
      return this.#breach(`the client set unknown handshake flags: 0x${flags.toString(16)}`);
    this.#stage = 'header';
    return true;
  }

  #readHeader(): boolean {
    if (!this.#inbox.take(nbdOption.sizeBytes)) return false;
    const { magic, option, length } = nbdOption.read(this.#inbox.source, this.#inbox.offset);
    if (magic !== IHAVEOPT) return this.#breach('an option does not begin with its magic number');
    const { handshakeOptionsMax, handshakeBytesMax, optionBytesMax } = this.#shared.limits;
    this.#optionCount++;
    this.#receivedBytes += nbdOption.sizeBytes + length;
    if (this.#optionCount > handshakeOptionsMax) return this.#breach(`more than ${handshakeOptionsMax} options`);
    if (this.#receivedBytes > handshakeBytesMax) {
      return this.#breach(`a handshake of more than ${handshakeBytesMax} bytes`);
    }
    this.#option = option;
    this.#optionBytes = length;
    this.#dataLeft = length;
    this.#stage = length > optionBytesMax ? 'skip' : 'data';
    return true;
  }

  #readData(): boolean {
    if (this.#dataLeft > 0 && !this.#inbox.take(this.#dataLeft)) return false;
    const data = this.#dataLeft > 0 ? Buffer.from(this.#inbox.view(this.#dataLeft)) : new Uint8Array(0);
    const decision = decide(this.#state!, { option: this.#option, data });
    if ('ask' in decision) void this.#ask(decision);
    else this.#apply(decision);
    return true;
  }

  /** Looks up what the decision wants to know, and goes on. Never rejects. */
  async #ask(question: Question): Promise<void> {
    this.#stage = 'asking';
    this.#stopClock();
    try {
      if (question.ask === 'list') {
        const exports = await this.#shared.catalog.list();
        if (this.#stillAsking()) this.#apply(question.answer(exports));
      } else {
        await this.#askForExport(question);
      }
    } catch (error) {
      if (isBug(error)) this.#host.bug(error);
      else if (this.#stillAsking()) this.#apply(refuse(this.#state!, this.#option, this.#explain(error)));
    }
    if (this.waitsForClient) {
      this.#startClock();
      this.pump();
      this.#host.readOn();
    }
  }

  async #askForExport(question: Extract<Question, { ask: 'export' }>): Promise<void> {
    const lease = await this.#shared.catalog.acquire(question.name);
    if (lease === undefined) {
      const message = `there is no export "${question.name}": NBD_OPT_LIST names them all`;
      if (this.#stillAsking()) this.#apply(question.answer({ reply: optionReplies.NBD_REP_ERR_UNKNOWN, message }));
      return;
    }
    const attachment = question.enter && this.#stillAsking() ? this.#attach(lease) : releasing(lease);
    let kept = false;
    try {
      if (!this.#stillAsking()) return;
      const answer = question.answer('lease' in attachment ? this.#factsOf(lease) : attachment);
      if (answer.next.to === 'transmission' && 'lease' in attachment) {
        kept = true;
        this.#enter(answer, attachment);
      } else {
        this.#apply(answer);
      }
    } finally {
      if (!kept) {
        if ('lease' in attachment) attachment.release();
        else lease.release();
      }
    }
  }

  /** The lease with the right to write, where one is needed; or why not. */
  #attach(lease: ExportLease): Attachment | Refusal {
    if (lease.readOnly || this.#shared.writers === undefined) return releasing(lease);
    const hold = this.#shared.writers.enter(lease, this.#host.peer);
    if ('reply' in hold) {
      this.#host.log.warn({ export: lease.name, option: nameOf(options, this.#option) }, hold.message);
      return hold;
    }
    return releasing(lease, hold);
  }

  #factsOf({ name, description, readOnly, device }: ExportLease): ExportFacts {
    const { sizeBytes, supports, cache }: ExportDevice = device;
    return {
      name,
      description,
      readOnly,
      sizeBytes,
      supports: { ...supports, fastZero: supports.fastZero === true, cache: cache !== undefined },
      contexts: contextsOf(device),
      blockSize: { minimum: this.#shared.minimumBlock, maximumPayload: this.#shared.limits.payloadBytesMax },
    };
  }

  /** An export that exists and cannot be opened. The text of our own errors is meant for the client; others stay in the log. */
  #explain(error: unknown): Refusal {
    this.#host.log.error(
      { option: nameOf(options, this.#option), error: describeError(error) },
      'an export could not be opened',
    );
    if (error instanceof UserError) return { reply: optionReplies.NBD_REP_ERR_POLICY, message: error.message };
    const isOurs =
      error instanceof CorruptStoreError || error instanceof StoreUnavailableError || error instanceof OverlayError;
    const message = isOurs ? error.message : 'the export could not be opened: see the log of the server';
    return { reply: optionReplies.NBD_REP_ERR_UNKNOWN, message };
  }

  #stillAsking(): boolean {
    return this.#stage === 'asking';
  }

  #apply({ replies, next }: Answer): void {
    if (next.to === 'tls') {
      this.#state = next.state;
      this.#stage = 'securing';
      this.#host.startTls(replies, this.#shared.tls!.credentials);
      return;
    }
    if (!this.#host.sendReplies(replies)) this.#clogged = true;
    if (next.to === 'close') {
      this.#close(next.reason);
    } else if (next.to === 'options' && !this.#drainingServer) {
      this.#state = next.state;
      this.#stage = 'header';
    } else {
      this.#close('the server is shutting down');
    }
  }

  #enter({ replies, next }: Answer, attachment: Attachment): void {
    if (next.to !== 'transmission' || this.#drainingServer) {
      attachment.release();
      this.#apply(refuse(this.#state!, this.#option, refusals.shutdown));
      return;
    }
    this.stop();
    this.#host.sendReplies(replies);
    this.#host.enter(next.session, attachment);
  }

  #close(reason: string): void {
    this.stop();
    this.#host.close(reason);
  }

  #breach(message: string): false {
    this.stop();
    this.#host.breach(new ProtocolError(message));
    return false;
  }

  #startClock(): void {
    this.#clockStartedMs = performance.now();
    this.#clock = setTimeout(
      () => this.#breach(`no handshake within ${this.#shared.limits.handshakeMsMax} ms`),
      this.#clientMsLeft,
    );
  }

  #stopClock(): void {
    if (this.#clock === undefined) return;
    clearTimeout(this.#clock);
    this.#clock = undefined;
    this.#clientMsLeft = Math.max(0, this.#clientMsLeft - (performance.now() - this.#clockStartedMs));
  }
}

function releasing(lease: ExportLease, hold?: WriterHold): Attachment {
  return {
    lease,
    release() {
      // The right to write first: whoever takes it next must find the device still open.
      hold?.release();
      lease.release();
    },
  };
}
