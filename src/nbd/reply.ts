/** Replies as bytes, in the style the session agreed on. Unrolled by hand where it runs for every request; the tests hold that against the tables. */
import type { Frame } from './frame-pool.ts';
import { HEADROOM_BYTES } from './frame-pool.ts';
import type { ReplyStyle } from './handshake.ts';
import type { StatusRun } from './meta-context.ts';
import { limitedString } from './option-data.ts';
import {
  commands,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbdExtendedReply,
  nbdSimpleReply,
  nbdStructuredReply,
  replyTypes,
} from './protocol.ts';
import type { RequestHeader, RequestRefusal } from './request.ts';

/** OFFSET_DATA begins with the data's offset. */
const DATA_OFFSET_BYTES = 8;
const TWO_TO_32 = 2 ** 32;
/** Bytes of an error's text for people: a log line, no more. */
const ERROR_TEXT_BYTES_MAX = 512;

/** The answer to a READ: `length` bytes are in the frame. */
export function sealData(frame: Frame, style: ReplyStyle, request: RequestHeader): Buffer {
  const { length } = request;
  if (style === 'simple') {
    writeSimple(frame.bytes, HEADROOM_BYTES - nbdSimpleReply.sizeBytes, request, 0);
    return frame.slice(nbdSimpleReply.sizeBytes, length);
  }
  // A chunk of OFFSET_DATA describes at least one byte.
  if (length === 0) return sealDone(frame, style, request);
  const headBytes = chunkHeadBytes(style) + DATA_OFFSET_BYTES;
  const at = HEADROOM_BYTES - headBytes;
  writeChunkHead(frame.bytes, at, style, request, {
    type: replyTypes.NBD_REPLY_TYPE_OFFSET_DATA,
    flags: NBD_REPLY_FLAG_DONE,
    length: DATA_OFFSET_BYTES + length,
  });
  writeU64(frame.bytes, HEADROOM_BYTES - DATA_OFFSET_BYTES, request.offset);
  return frame.slice(headBytes, length);
}

/** The answer to a request that went well and has nothing to tell. Structured sessions get a simple reply for all but READ: it is shorter. */
export function sealDone(frame: Frame, style: ReplyStyle, request: RequestHeader): Buffer {
  if (style === 'simple' || (style === 'structured' && request.type !== commands.NBD_CMD_READ)) {
    writeSimple(frame.bytes, HEADROOM_BYTES - nbdSimpleReply.sizeBytes, request, 0);
    return frame.slice(nbdSimpleReply.sizeBytes, 0);
  }
  const headBytes = chunkHeadBytes(style);
  const done = { type: replyTypes.NBD_REPLY_TYPE_NONE, flags: NBD_REPLY_FLAG_DONE, length: 0 };
  writeChunkHead(frame.bytes, HEADROOM_BYTES - headBytes, style, request, done);
  return frame.slice(headBytes, 0);
}

/** The answer to a request that was refused or failed. With chunks it carries the text: "The server SHOULD prefer sending errors via a structured reply". */
export function encodeError(style: ReplyStyle, request: RequestHeader, { errno, message }: RequestRefusal): Buffer {
  if (style === 'simple') {
    const reply = Buffer.allocUnsafe(nbdSimpleReply.sizeBytes);
    writeSimple(reply, 0, request, errno);
    return reply;
  }
  const text = limitedString(message, ERROR_TEXT_BYTES_MAX);
  const headBytes = chunkHeadBytes(style);
  const reply = Buffer.allocUnsafe(headBytes + 6 + text.length);
  writeChunkHead(reply, 0, style, request, {
    type: replyTypes.NBD_REPLY_TYPE_ERROR,
    flags: NBD_REPLY_FLAG_DONE,
    length: 6 + text.length,
  });
  reply.writeUInt32BE(errno, headBytes);
  reply.writeUInt16BE(text.length, headBytes + 4);
  reply.set(text, headBytes + 6);
  return reply;
}

/** Status of one context. */
export interface ContextStatus {
  readonly id: number;
  readonly runs: readonly StatusRun[];
}

/** Bytes of one context's chunk with so many descriptors, at most: what a reply may cost. */
export function statusChunkBytes(runCount: number): number {
  return nbdExtendedReply.sizeBytes + 8 + 16 * runCount;
}

/** The answer to BLOCK_STATUS: a chunk for each context, at least one; the last one ends the reply. */
export function encodeStatus(style: ReplyStyle, request: RequestHeader, statuses: readonly ContextStatus[]): Buffer {
  const extended = style === 'extended';
  const chunks = statuses.map(({ id, runs }, index) => {
    const headBytes = chunkHeadBytes(style);
    const length = extended ? 8 + 16 * runs.length : 4 + 8 * runs.length;
    const chunk = Buffer.allocUnsafe(headBytes + length);
    writeChunkHead(chunk, 0, style, request, {
      type: extended ? replyTypes.NBD_REPLY_TYPE_BLOCK_STATUS_EXT : replyTypes.NBD_REPLY_TYPE_BLOCK_STATUS,
      flags: index === statuses.length - 1 ? NBD_REPLY_FLAG_DONE : 0,
      length,
    });
    let at = chunk.writeUInt32BE(id, headBytes);
    if (extended) at = chunk.writeUInt32BE(runs.length, at);
    for (const run of runs) {
      at = extended ? writeU64(chunk, at, run.length) : chunk.writeUInt32BE(run.length, at);
      at = extended ? writeU64(chunk, at, run.flags) : chunk.writeUInt32BE(run.flags, at);
    }
    return chunk;
  });
  return Buffer.concat(chunks);
}

function chunkHeadBytes(style: ReplyStyle): number {
  return style === 'extended' ? nbdExtendedReply.sizeBytes : nbdStructuredReply.sizeBytes;
}

function writeSimple(target: Buffer, at: number, request: RequestHeader, error: number): void {
  target.writeUInt32BE(NBD_SIMPLE_REPLY_MAGIC, at);
  target.writeUInt32BE(error, at + 4);
  target.writeUInt32BE(request.cookieHigh, at + 8);
  target.writeUInt32BE(request.cookieLow, at + 12);
}

function writeChunkHead(
  target: Buffer,
  at: number,
  style: ReplyStyle,
  request: RequestHeader,
  chunk: { readonly type: number; readonly flags: number; readonly length: number },
): void {
  const extended = style === 'extended';
  target.writeUInt32BE(extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC, at);
  target.writeUInt16BE(chunk.flags, at + 4);
  target.writeUInt16BE(chunk.type, at + 6);
  target.writeUInt32BE(request.cookieHigh, at + 8);
  target.writeUInt32BE(request.cookieLow, at + 12);
  if (!extended) {
    target.writeUInt32BE(chunk.length, at + 16);
    return;
  }
  // "The offset field MUST match the offset of the client's request": its two halves as they came, were it the last
  // byte of the 64-bit space.
  target.writeUInt32BE(request.offsetHigh, at + 16);
  target.writeUInt32BE(request.offsetLow, at + 20);
  writeU64(target, at + 24, chunk.length);
}

/** Returns the offset behind what was written, as Buffer's own methods do. */
function writeU64(target: Buffer, at: number, value: number): number {
  target.writeUInt32BE(Math.floor(value / TWO_TO_32), at);
  return target.writeUInt32BE(value % TWO_TO_32, at + 4);
}
