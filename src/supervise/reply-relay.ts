/**
 * Replies from the worker to a client. A reply goes on only when it is there to its last byte, all chunks of it: so a
 * worker that dies in the middle of one leaves nothing half said, and the next one may answer in its own way. How much
 * is kept for that is bounded by what the worker has in flight.
 *
 * What lies together in a chunk from the socket leaves as one view of it; cookies are put back in place.
 */
import {
  commands,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbdExtendedReply,
  nbdSimpleReply,
  nbdStructuredReply,
} from '../nbd/protocol.ts';
import type { Slot, Unanswered } from './unanswered.ts';

/** Where the cookie stands, in every kind of reply. */
const COOKIE_AT = 8;
const LENGTH_AT = { structured: 16, extended: 24 } as const;
const TWO_TO_32 = 2 ** 32;

export interface ReplyRelayHost {
  /** Sends to the client. */
  forward(bytes: Buffer): void;
  /** The worker said something that makes no sense: the connection is to be closed. */
  breach(message: string): void;
}

export class ReplyRelay {
  readonly #unanswered: Unanswered;
  readonly #host: ReplyRelayHost;
  /** The frame (a simple reply, or a chunk) that is coming, as far as earlier chunks of the socket had it. */
  #held: Buffer[] = [];
  #header: Buffer | undefined;
  #headerBytes = 0;
  #slot: Slot | undefined;
  #isLast = false;
  #payloadLeft = 0;
  #isBroken = false;
  /** Of the chunk being worked on: what is to be sent begins here, and the frame that is coming here. */
  #runStart = 0;
  #frameStart = 0;

  constructor(host: ReplyRelayHost, unanswered: Unanswered) {
    this.#host = host;
    this.#unanswered = unanswered;
  }

  /** Forgets a reply that is not complete: its worker is gone. */
  reset(): void {
    this.#held = [];
    this.#header = undefined;
    this.#headerBytes = 0;
    this.#slot = undefined;
    this.#payloadLeft = 0;
    this.#unanswered.forgetReplies();
  }

  receive(chunk: Buffer): void {
    let at = 0;
    this.#runStart = 0;
    this.#frameStart = 0;
    while (at < chunk.length && !this.#isBroken) {
      if (this.#slot === undefined) {
        at = this.#takeHeader(chunk, at);
        if (this.#slot === undefined) break;
      }
      const part = Math.min(this.#payloadLeft, chunk.length - at);
      at += part;
      this.#payloadLeft -= part;
      if (this.#payloadLeft === 0) this.#finishFrame(chunk, at);
    }
    if (this.#isBroken) return;
    this.#forward(chunk, this.#runStart, this.#frameStart);
    if (this.#slot !== undefined && this.#frameStart < chunk.length) this.#held.push(chunk.subarray(this.#frameStart));
  }

  /** Reads the header at `at`, or as much of it as is there; returns where it ends. Without a slot then: more must come. */
  #takeHeader(chunk: Buffer, at: number): number {
    const whole = this.#header === undefined ? headerBytesAt(chunk, at, chunk.length) : 0;
    if (whole > 0) {
      this.#begin(chunk, at);
      return at + whole;
    }
    if (this.#header === undefined) {
      this.#forward(chunk, this.#runStart, this.#frameStart);
      this.#header = Buffer.allocUnsafeSlow(nbdExtendedReply.sizeBytes);
      this.#headerBytes = 0;
    }
    let end = at;
    // Byte by byte: how long it is shows on the way, and it is seldom that a header is cut.
    while (end < chunk.length && this.#headerBytes < this.#header.length) {
      if (headerBytesAt(this.#header, 0, this.#headerBytes) > 0) break;
      this.#header[this.#headerBytes++] = chunk[end++]!;
    }
    this.#runStart = end;
    this.#frameStart = end;
    if (headerBytesAt(this.#header, 0, this.#headerBytes) > 0) {
      const header = this.#header.subarray(0, this.#headerBytes);
      this.#header = undefined;
      this.#begin(header, 0);
      this.#held.push(header);
    } else if (this.#headerBytes === nbdExtendedReply.sizeBytes) {
      this.#break('a reply has a wrong magic number');
    }
    return end;
  }

  /** A frame begins: whose it is, and how much of it is to come. */
  #begin(source: Buffer, at: number): void {
    const slot = this.#unanswered.find(source.readUInt32BE(at + COOKIE_AT), source.readUInt32BE(at + COOKIE_AT + 4));
    if (slot === undefined) {
      this.#break('a reply is for no request');
      return;
    }
    source.writeUInt32BE(slot.cookieHigh, at + COOKIE_AT);
    source.writeUInt32BE(slot.cookieLow, at + COOKIE_AT + 4);
    const magic = source.readUInt32BE(at);
    if (magic === NBD_SIMPLE_REPLY_MAGIC) {
      const hasData = slot.type === commands.NBD_CMD_READ && source.readUInt32BE(at + 4) === 0;
      this.#payloadLeft = hasData ? slot.length : 0;
      this.#isLast = true;
    } else {
      this.#payloadLeft =
        magic === NBD_STRUCTURED_REPLY_MAGIC
          ? source.readUInt32BE(at + LENGTH_AT.structured)
          : source.readUInt32BE(at + LENGTH_AT.extended) * TWO_TO_32 + source.readUInt32BE(at + LENGTH_AT.extended + 4);
      this.#isLast = (source.readUInt16BE(at + 4) & NBD_REPLY_FLAG_DONE) !== 0;
    }
    this.#slot = slot;
  }

  /** A frame ends at `at`: the last one of a reply sends all of it. */
  #finishFrame(chunk: Buffer, at: number): void {
    const slot = this.#slot!;
    const held = this.#held;
    if (!this.#isLast) {
      this.#forward(chunk, this.#runStart, this.#frameStart);
      slot.chunks.push(...held);
      if (at > this.#frameStart) slot.chunks.push(chunk.subarray(this.#frameStart, at));
      this.#runStart = at;
    } else {
      if (slot.chunks.length > 0) {
        this.#forward(chunk, this.#runStart, this.#frameStart);
        this.#runStart = this.#frameStart;
        for (const earlier of slot.chunks) this.#host.forward(earlier);
      }
      for (const piece of held) this.#host.forward(piece);
      this.#unanswered.release(slot);
    }
    if (held.length > 0) this.#held = [];
    this.#slot = undefined;
    this.#frameStart = at;
  }

  #forward(chunk: Buffer, start: number, end: number): void {
    if (end > start) this.#host.forward(start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end));
  }

  #break(message: string): void {
    this.#isBroken = true;
    this.#host.breach(message);
  }
}

/** Bytes of the reply header at `at`, of which `end` is the end of what is there; 0 if not all of it is, or it is none. */
function headerBytesAt(source: Buffer, at: number, end: number): number {
  if (end - at < nbdSimpleReply.sizeBytes) return 0;
  const magic = source.readUInt32BE(at);
  if (magic === NBD_SIMPLE_REPLY_MAGIC) return nbdSimpleReply.sizeBytes;
  const bytes =
    magic === NBD_STRUCTURED_REPLY_MAGIC
      ? nbdStructuredReply.sizeBytes
      : magic === NBD_EXTENDED_REPLY_MAGIC
        ? nbdExtendedReply.sizeBytes
        : Number.POSITIVE_INFINITY;
  return end - at < bytes ? 0 : bytes;
}
