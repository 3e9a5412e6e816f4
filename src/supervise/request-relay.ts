/**
 * Requests from a client to the worker: each is noted, gets the number of its slot for a cookie, in place, and goes on.
 * What lies together in a chunk from the socket leaves as one view of it; nothing is copied but headers.
 *
 * When there is no room for a request, it and all behind it waits here, and `isStalled` says not to read on.
 */
import { nbdLimits } from '../nbd/limits.ts';
import { commands } from '../nbd/protocol.ts';
import { type RequestStream, requestBytes, takeRequest } from '../nbd/request.ts';
import type { Slot, Unanswered } from './unanswered.ts';

const nothing = Buffer.alloc(0);
/** Where the cookie stands in a request, compact or extended. */
const COOKIE_AT = 8;

export interface RequestRelayHost {
  /** Sends to the worker, if there is one: if not, the bytes come again from `Unanswered.replay`. */
  forward(bytes: Buffer): void;
  /** The client is out of step: its connection is to be closed. */
  breach(message: string): void;
}

export class RequestRelay {
  readonly #unanswered: Unanswered;
  readonly #host: RequestRelayHost;
  readonly #stream: RequestStream;
  readonly #headerBytes: number;
  #chunk: Buffer = nothing;
  #at = 0;
  /** A header that is spread over chunks. */
  #gathered: Buffer | undefined;
  #gatheredBytes = 0;
  /** The request whose payload is coming. */
  #current: Slot | undefined;
  #payloadLeft = 0;
  #disconnect: Buffer | undefined;
  #isOver = false;
  #isPumping = false;

  constructor(host: RequestRelayHost, unanswered: Unanswered, extended: boolean) {
    this.#host = host;
    this.#unanswered = unanswered;
    this.#stream = { extended, payloadBytesMax: nbdLimits.drainedPayloadBytesMax };
    this.#headerBytes = requestBytes(extended);
  }

  /** Whether a request waits for room: then nothing more may be received. */
  get isStalled(): boolean {
    return this.#at < this.#chunk.length || this.#gatheredBytes === this.#headerBytes;
  }

  /** Whether the client has said that nothing more will come. */
  get isOver(): boolean {
    return this.#isOver;
  }

  receive(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#chunk = chunk;
    this.#at = 0;
    this.pump();
  }

  /** Goes on with what is there: room may have come. */
  pump(): void {
    if (this.#isPumping) return; // Asked from below `forward`, or by the account while a request is being admitted.
    this.#isPumping = true;
    try {
      let runStart = this.#at;
      while (!this.#isOver && this.isStalled) {
        if (this.#payloadLeft > 0) {
          this.#takePayload();
        } else if (this.#gatheredBytes > 0 || this.#chunk.length - this.#at < this.#headerBytes) {
          this.#forward(runStart);
          const isAdmitted = this.#gather();
          runStart = this.#at;
          if (!isAdmitted) break;
        } else {
          if (!this.#admit(this.#chunk, this.#at)) break;
          this.#at += this.#headerBytes;
        }
      }
      this.#forward(runStart);
      if (this.#isOver) this.#chunk = nothing;
    } finally {
      this.#isPumping = false;
    }
  }

  /** What to send to a new worker. */
  replay(): Buffer[] {
    const requests = this.#unanswered.replay(this.#headerBytes);
    return this.#disconnect === undefined ? requests : [...requests, this.#disconnect];
  }

  #forward(runStart: number): void {
    if (this.#at > runStart) this.#host.forward(this.#chunk.subarray(runStart, this.#at));
  }

  #takePayload(): void {
    const part = Math.min(this.#payloadLeft, this.#chunk.length - this.#at);
    const slot = this.#current!;
    if (slot.replayable) slot.payload.push(this.#chunk.subarray(this.#at, this.#at + part));
    this.#at += part;
    this.#payloadLeft -= part;
  }

  /** Completes a header that is spread over chunks, and sends it. False if it is not complete, or has no room. */
  #gather(): boolean {
    this.#gathered ??= Buffer.allocUnsafeSlow(this.#headerBytes);
    const part = Math.min(this.#headerBytes - this.#gatheredBytes, this.#chunk.length - this.#at);
    this.#chunk.copy(this.#gathered, this.#gatheredBytes, this.#at, this.#at + part);
    this.#at += part;
    this.#gatheredBytes += part;
    if (this.#gatheredBytes < this.#headerBytes || !this.#admit(this.#gathered, 0)) return false;
    const header = this.#gathered;
    this.#gathered = undefined;
    this.#gatheredBytes = 0;
    this.#host.forward(header);
    return true;
  }

  /** Notes the request whose header is at `at`, and gives it its cookie. False if there is no room, or it is none. */
  #admit(source: Buffer, at: number): boolean {
    const slot = this.#unanswered.spare();
    const bytes = takeRequest(source, at, slot, this.#stream);
    if (typeof bytes === 'string') {
      this.#unanswered.putBack(slot);
      this.#isOver = true;
      this.#host.breach(bytes);
      return false;
    }
    if (slot.type === commands.NBD_CMD_DISC) {
      this.#unanswered.putBack(slot);
      this.#disconnect = Buffer.from(source.subarray(at, at + this.#headerBytes));
      this.#isOver = true;
      return true;
    }
    const isKept = bytes <= nbdLimits.payloadBytesMax;
    if (!this.#unanswered.admit(slot, isKept ? bytes : 0)) {
      this.#unanswered.putBack(slot);
      return false;
    }
    slot.replayable = isKept;
    source.writeUInt32BE(0, at + COOKIE_AT);
    source.writeUInt32BE(slot.index, at + COOKIE_AT + 4);
    source.copy(slot.header, 0, at, at + this.#headerBytes);
    this.#current = slot;
    this.#payloadLeft = bytes;
    return true;
  }
}
