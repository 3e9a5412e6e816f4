/**
 * The handshake of one connection, between client and worker, one option at a time:
 *
 *   greeting -> flags -> header -> data -> identifying -> answering -> header
 *                                   |      (GO, EXPORT_NAME)  |
 *                                   +-------> answering ------+-> over     transmission, or the connection closes
 *
 * What shapes the session (flags, styles, the metadata contexts, and what led into transmission) is recorded with the
 * worker's answers, to be said again to the next worker, whose answers must be the same to the byte. An option that is
 * not answered when the worker dies is simply asked again: answers go on to the client only when they are complete.
 *
 * TLS ends here: NBD_OPT_STARTTLS never reaches a worker, and neither does anything that must wait for it (nbd/starttls.ts).
 * After it the handshake begins anew, with the worker too.
 *
 * The right to write is given here, because to the worker all connections come from one Unix socket: the worker says
 * which device a name means, and the name goes on only if this client may have it.
 */
import { begin, type Refusal, type ReplyStyle } from '../nbd/handshake.ts';
import { Inbox } from '../nbd/inbox.ts';
import { nbdLimits } from '../nbd/limits.ts';
import { encodeErrorReply, encodeReply, parseInfoQuery, parseString } from '../nbd/option-data.ts';
import {
  EXPORT_NAME_PADDING_BYTES,
  handshakeFlags,
  IHAVEOPT,
  NBD_REP_MAGIC,
  nbdClientFlags,
  nbdExportNameReply,
  nbdGreeting,
  nbdOption,
  nbdOptionReply,
  optionReplies,
  options,
} from '../nbd/protocol.ts';
import { judgeByTls, type TlsState } from '../nbd/starttls.ts';
import type { TlsTerms } from '../nbd/tls-credentials.ts';
import type { Peer, WriterHold, Writers } from '../nbd/writers.ts';
import type { DeviceIdentity } from './control.ts';

export interface HandshakeHost {
  readonly peer: Peer;
  /** Undefined: any number of clients may write. */
  readonly writers: Writers | undefined;
  readonly tls: TlsTerms | undefined;
  /** Which device a name means to the worker, the next one if this one dies; undefined if it has none. Never rejects. */
  identify(name: string): Promise<DeviceIdentity | undefined>;
  sendClient(bytes: Uint8Array): void;
  /** Sends to the worker, if there is one: if not, the bytes come again from `replay`. */
  sendWorker(bytes: Uint8Array): void;
  /** Sends what has gathered, outside of a call from the connection. */
  flush(): void;
  /** The answer leaves, and behind it the TLS handshake begins with `received`; then `secured`. What was agreed with the worker is void. */
  startTls(answer: Uint8Array, received: Buffer): void;
  /** The client has an export; what it sent behind the handshake is `rest`. */
  enter(style: ReplyStyle, rest: Buffer): void;
  /** The connection is to be closed, once what was sent is out. */
  close(reason: string): void;
}

/** An option that shapes the session, and what the worker said to it. */
interface Exchange {
  readonly option: number;
  readonly sent: Buffer;
  readonly answer: Buffer;
}

/** An export that was asked for. */
export interface ChosenExport {
  readonly name: string;
  readonly device: DeviceIdentity;
}

const nothing = Buffer.alloc(0);

export class HandshakeRelay {
  readonly #host: HandshakeHost;
  readonly #fromClient = new Inbox();
  readonly #fromWorker = new Inbox();
  #stage: 'greeting' | 'flags' | 'header' | 'data' | 'identifying' | 'answering' | 'securing' | 'over' = 'greeting';
  #greeting: Buffer | undefined;
  #flags: Buffer | undefined;
  #exchanges: Exchange[] = [];
  #header: Buffer = nothing;
  #option = 0;
  #dataBytes = 0;
  #optionCount = 0;
  #receivedBytes = 0;
  #tls: TlsState;
  /** The option that the worker has not answered in full, and its answer so far. */
  #pending: Buffer | undefined;
  #answer: Buffer[] = [];
  #replyHeader: Buffer | undefined;
  #style: ReplyStyle = 'simple';
  #chosen: ChosenExport | undefined;
  #hold: WriterHold | undefined;

  constructor(host: HandshakeHost) {
    this.#host = host;
    this.#tls = host.tls === undefined ? 'off' : host.tls.required ? 'required' : 'offered';
  }

  /** Whether more from the client can be received. */
  get wantsInput(): boolean {
    return this.#fromClient.pendingBytes === 0;
  }

  /** Whether all that came is dealt with, and the next move is the client's. */
  get isStarved(): boolean {
    const isReading = this.#stage === 'flags' || this.#stage === 'header' || this.#stage === 'data';
    return isReading && this.wantsInput;
  }

  /** The export that the client has, or has just asked for: the next worker must mean the same device. */
  get chosen(): ChosenExport | undefined {
    return this.#chosen;
  }

  /** Whether the worker was asked for something that makes it close the connection. */
  get mayBeClosed(): boolean {
    const { NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME } = options;
    const isLast =
      this.#option === NBD_OPT_ABORT || (this.#option === NBD_OPT_EXPORT_NAME && this.#chosen === undefined);
    return this.#stage === 'answering' && isLast;
  }

  /** For the end of the connection, when nothing of it is in flight any more. */
  release(): void {
    this.#stage = 'over';
    this.#hold?.release();
    this.#hold = undefined;
  }

  receiveFromClient(chunk: Buffer): void {
    if (this.#stage === 'over') return;
    this.#fromClient.push(chunk);
    this.#pump();
  }

  receiveFromWorker(chunk: Buffer): void {
    this.#fromWorker.push(chunk);
    while (this.#stepFromWorker());
  }

  /** The TLS handshake is done. */
  secured(): void {
    if (this.#stage === 'securing') this.#stage = 'header';
  }

  /** What to say to a new worker, and what it has to answer, byte for byte. Then `resume`. */
  replay(): { readonly say: Buffer; readonly expect: Buffer } {
    this.#fromWorker.clear();
    this.#answer = [];
    this.#replyHeader = undefined;
    return {
      say: Buffer.concat([this.#flags ?? nothing, ...this.#exchanges.map(({ sent }) => sent)]),
      expect: Buffer.concat([this.#greeting ?? nothing, ...this.#exchanges.map(({ answer }) => answer)]),
    };
  }

  /** The new worker has answered as the old one had: what that one left unanswered is asked again. */
  resume(): void {
    if (this.#pending !== undefined) this.#host.sendWorker(this.#pending);
  }

  #pump(): void {
    while (this.#stepFromClient());
  }

  #stepFromClient(): boolean {
    switch (this.#stage) {
      case 'flags': {
        if (!this.#fromClient.take(nbdClientFlags.sizeBytes)) return false;
        this.#flags = Buffer.from(this.#fromClient.view(nbdClientFlags.sizeBytes));
        if (begin(this.#flags.readUInt32BE(0), 'off') === undefined) {
          return this.#close('the client set unknown handshake flags');
        }
        this.#host.sendWorker(this.#flags);
        this.#stage = 'header';
        return true;
      }
      case 'header':
        return this.#readHeader();
      case 'data': {
        if (this.#dataBytes > 0 && !this.#fromClient.take(this.#dataBytes)) return false;
        const data = this.#dataBytes > 0 ? this.#fromClient.view(this.#dataBytes) : nothing;
        this.#ask(data);
        return true;
      }
      default:
        return false;
    }
  }

  #readHeader(): boolean {
    if (!this.#fromClient.take(nbdOption.sizeBytes)) return false;
    const { magic, option, length } = nbdOption.read(this.#fromClient.source, this.#fromClient.offset);
    if (magic !== IHAVEOPT) return this.#close('an option does not begin with its magic number');
    this.#optionCount++;
    this.#receivedBytes += nbdOption.sizeBytes + length;
    if (this.#optionCount > nbdLimits.handshakeOptionsMax) {
      return this.#close(`more than ${nbdLimits.handshakeOptionsMax} options`);
    }
    if (this.#receivedBytes > nbdLimits.handshakeBytesMax) {
      return this.#close(`a handshake of more than ${nbdLimits.handshakeBytesMax} bytes`);
    }
    this.#header = Buffer.from(this.#fromClient.view(nbdOption.sizeBytes));
    this.#option = option;
    this.#dataBytes = length;
    this.#stage = 'data';
    return true;
  }

  #ask(data: Buffer): void {
    const byTls = judgeByTls(this.#tls, this.#option, data.length);
    if (byTls === 'start') {
      this.#startTls();
      return;
    }
    if (byTls !== undefined) {
      this.#refuse(byTls);
      return;
    }
    const option = Buffer.concat([this.#header, data]);
    const name = exportNameOf(this.#option, data);
    if (name === undefined) this.#forwardOption(option);
    else void this.#askForExport(option, name);
  }

  /** Never rejects, as nothing in it does. */
  async #askForExport(option: Buffer, name: string): Promise<void> {
    this.#stage = 'identifying';
    const device = await this.#host.identify(name);
    if (this.#stage !== 'identifying') return;
    if (device === undefined || this.#takeRight(device)) {
      this.#chosen = device && { name, device };
      this.#forwardOption(option);
    }
    this.#host.flush();
  }

  /** Whether the client may write the device, or need not; if not, it is told. */
  #takeRight(device: DeviceIdentity): boolean {
    const { writers, peer } = this.#host;
    if (device.readOnly || writers === undefined) return true;
    const hold = writers.enter(device, peer);
    if (!('reply' in hold)) {
      this.#hold = hold;
      return true;
    }
    this.#refuse(hold);
    this.#pump();
    return false;
  }

  /** Answers an option that does not go on to the worker. */
  #refuse({ reply, message }: Refusal): void {
    if (this.#option === options.NBD_OPT_EXPORT_NAME) {
      this.#close(message);
      return;
    }
    this.#host.sendClient(encodeErrorReply(this.#option, reply, message));
    this.#stage = 'header';
  }

  /** What was agreed on in clear may have been put in by somebody in between: it is forgotten, by the worker too. */
  #startTls(): void {
    this.#stage = 'securing';
    this.#tls = 'established';
    this.#style = 'simple';
    this.#exchanges = [];
    this.#host.startTls(encodeReply(this.#option, optionReplies.NBD_REP_ACK), this.#fromClient.takeRest());
  }

  #forwardOption(option: Buffer): void {
    this.#pending = option;
    this.#stage = 'answering';
    this.#host.sendWorker(option);
  }

  #stepFromWorker(): boolean {
    const inbox = this.#fromWorker;
    if (this.#stage === 'greeting') {
      if (!inbox.take(nbdGreeting.sizeBytes)) return false;
      this.#greeting = Buffer.from(inbox.view(nbdGreeting.sizeBytes));
      this.#host.sendClient(this.#greeting);
      this.#stage = 'flags';
      this.#pump();
      return true;
    }
    if (this.#stage !== 'answering') {
      if (inbox.pendingBytes > 0 && this.#stage !== 'over') this.#close('the worker said something unasked');
      return false;
    }
    return this.#option === options.NBD_OPT_EXPORT_NAME ? this.#readExportName() : this.#readReply();
  }

  #readExportName(): boolean {
    const padded = (this.#flags!.readUInt32BE(0) & handshakeFlags.NBD_FLAG_NO_ZEROES) === 0;
    const bytes = nbdExportNameReply.sizeBytes + (padded ? EXPORT_NAME_PADDING_BYTES : 0);
    if (!this.#fromWorker.take(bytes)) return false;
    this.#answer.push(Buffer.from(this.#fromWorker.view(bytes)));
    this.#finishOption(true);
    return true;
  }

  #readReply(): boolean {
    const inbox = this.#fromWorker;
    if (this.#replyHeader === undefined) {
      if (!inbox.take(nbdOptionReply.sizeBytes)) return false;
      this.#replyHeader = Buffer.from(inbox.view(nbdOptionReply.sizeBytes));
    }
    const { magic, reply, length } = nbdOptionReply.read(this.#replyHeader);
    if (magic !== NBD_REP_MAGIC) return this.#close('the worker answered an option with a wrong magic number');
    if (length > 0 && !inbox.take(length)) return false;
    this.#answer.push(this.#replyHeader);
    if (length > 0) this.#answer.push(Buffer.from(inbox.view(length)));
    this.#replyHeader = undefined;
    const isAck = reply === optionReplies.NBD_REP_ACK;
    if (isAck || reply >= optionReplies.NBD_REP_ERR_UNSUP) this.#finishOption(isAck);
    return true;
  }

  /** The worker has answered in full: the client hears it, and what shapes the session is kept. */
  #finishOption(isAck: boolean): void {
    const answer = Buffer.concat(this.#answer);
    const exchange = { option: this.#option, sent: this.#pending!, answer };
    this.#answer = [];
    this.#pending = undefined;
    this.#stage = 'header';
    this.#host.sendClient(answer);
    const isEntry = this.#option === options.NBD_OPT_GO || this.#option === options.NBD_OPT_EXPORT_NAME;
    if (isEntry && !isAck) this.#giveUpExport();
    this.#record(exchange, isAck);
    if (this.#option === options.NBD_OPT_ABORT) this.#close('the client sent NBD_OPT_ABORT');
    else if (isEntry && isAck) this.#enter();
    else this.#pump();
  }

  #record(exchange: Exchange, isAck: boolean): void {
    const o = options;
    const { option } = exchange;
    // "The server MUST replace all previously-set contexts", also when it fails.
    if (option === o.NBD_OPT_SET_META_CONTEXT) this.#exchanges = this.#exchanges.filter((old) => old.option !== option);
    if (!isAck) return;
    if (option === o.NBD_OPT_STRUCTURED_REPLY && this.#style === 'simple') this.#style = 'structured';
    if (option === o.NBD_OPT_EXTENDED_HEADERS) this.#style = 'extended';
    const lasting: readonly number[] = [
      o.NBD_OPT_STRUCTURED_REPLY,
      o.NBD_OPT_EXTENDED_HEADERS,
      o.NBD_OPT_SET_META_CONTEXT,
      o.NBD_OPT_GO,
      o.NBD_OPT_EXPORT_NAME,
    ];
    if (!lasting.includes(option)) return;
    // Said twice, a style is agreed on once.
    if (this.#exchanges.some((old) => old.option === option)) return;
    this.#exchanges.push(exchange);
  }

  #giveUpExport(): void {
    this.#hold?.release();
    this.#hold = undefined;
    this.#chosen = undefined;
  }

  #enter(): void {
    this.#stage = 'over';
    const rest = this.#fromClient.takeRest();
    this.#fromClient.clear();
    this.#host.enter(this.#style, rest);
  }

  #close(reason: string): false {
    this.#stage = 'over';
    this.#fromClient.clear();
    this.#host.close(reason);
    return false;
  }
}

/** The export that an option is about to enter; undefined if it does not, or is malformed. */
function exportNameOf(option: number, data: Buffer): string | undefined {
  if (option === options.NBD_OPT_EXPORT_NAME) return parseString(data);
  return option === options.NBD_OPT_GO ? parseInfoQuery(data)?.name : undefined;
}
