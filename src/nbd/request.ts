/**
 * Requests: decoding, and validation as a pure function. Nothing here touches a device or a socket.
 */
import {
  commandFlags,
  commands,
  type Errno,
  errnos,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_MAGIC,
  nbdExtendedRequest,
  nbdRequest,
  transmissionFlags,
} from './protocol.ts';

/** A decoded request header. One object is filled over and over. */
export interface RequestHeader {
  type: number;
  flags: number;
  /** The cookie's two halves, as they are: a reply carries them back. */
  cookieHigh: number;
  cookieLow: number;
  /** Bytes. Above 2 ** 53 it is rounded: past the end of every device all the same. */
  offset: number;
  /** The offset's two halves, exactly: extended replies carry them back. */
  offsetHigh: number;
  offsetLow: number;
  /** Bytes: the range's, or the payload's if one follows. Rounded like `offset`. */
  length: number;
}

/** A header to decode into, and again into: what keeps a request builds on it. */
export class DecodedRequest implements RequestHeader {
  type = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offset = 0;
  offsetHigh = 0;
  offsetLow = 0;
  length = 0;
  /** Payload bytes the account was charged. */
  chargedBytes = 0;
}

/** What the session allows, worked out once. */
export interface RequestRules {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly extended: boolean;
  /** Largest READ or WRITE, bytes. */
  readonly payloadBytesMax: number;
  /** Offsets and lengths must be multiples of it: a power of two. */
  readonly minimumBlock: number;
  /** Contexts selected: BLOCK_STATUS can name so many. */
  readonly contextCount: number;
  /** Command flags each NBD_CMD_* may carry, by its number; no entry: the command is not offered. */
  readonly allowedFlags: readonly (number | undefined)[];
}

/** Why a request is not carried out: what the client gets, and a line for its log. */
export interface RequestRefusal {
  readonly errno: Errno;
  readonly message: string;
}

const TWO_TO_32 = 2 ** 32;
/** The effect length before the context ids in BLOCK_STATUS's payload. */
const STATUS_PAYLOAD_HEAD_BYTES = 8;

/** Bytes of a request header. */
export function requestBytes(extended: boolean): number {
  return extended ? nbdExtendedRequest.sizeBytes : nbdRequest.sizeBytes;
}

/**
 * Decodes the header at `at` into `header`. False if it has another magic: the stream is out of step.
 * Unrolled by hand, since it runs for every request; the tests hold it against the tables.
 */
export function decodeRequest(source: Buffer, at: number, extended: boolean, header: RequestHeader): boolean {
  if (source.readUInt32BE(at) !== (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)) return false;
  header.flags = source.readUInt16BE(at + 4);
  header.type = source.readUInt16BE(at + 6);
  header.cookieHigh = source.readUInt32BE(at + 8);
  header.cookieLow = source.readUInt32BE(at + 12);
  header.offsetHigh = source.readUInt32BE(at + 16);
  header.offsetLow = source.readUInt32BE(at + 20);
  header.offset = header.offsetHigh * TWO_TO_32 + header.offsetLow;
  header.length = extended
    ? source.readUInt32BE(at + 24) * TWO_TO_32 + source.readUInt32BE(at + 28)
    : source.readUInt32BE(at + 24);
  return true;
}

/** Bytes that follow the header. Only WRITE carries a payload in a compact request; in an extended one the flag tells. */
export function payloadBytes(header: RequestHeader, extended: boolean): number {
  const follows = extended
    ? (header.flags & commandFlags.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0
    : header.type === commands.NBD_CMD_WRITE;
  return follows ? header.length : 0;
}

/** The flags each command may carry, given what was advertised (spec, "Command flags"). */
export function allowedCommandFlags(advertised: number, contextCount: number): readonly (number | undefined)[] {
  const c = commandFlags;
  const f = transmissionFlags;
  const has = (flag: number) => (advertised & flag) !== 0;
  const writable = !has(f.NBD_FLAG_READ_ONLY);
  // With NBD_FLAG_SEND_FUA "the server MUST accept all commands with this bit set (even by ignoring the bit)".
  const fua = has(f.NBD_FLAG_SEND_FUA) ? c.NBD_CMD_FLAG_FUA : 0;
  const fastZero = has(f.NBD_FLAG_SEND_FAST_ZERO) ? c.NBD_CMD_FLAG_FAST_ZERO : 0;
  const statusPayload = has(f.NBD_FLAG_BLOCK_STATUS_PAYLOAD) ? c.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
  const table: (number | undefined)[] = [];
  table[commands.NBD_CMD_READ] = fua | (has(f.NBD_FLAG_SEND_DF) ? c.NBD_CMD_FLAG_DF : 0);
  // The payload flag is judged apart: extended headers demand it here, compact ones do not know it.
  if (writable) table[commands.NBD_CMD_WRITE] = fua | c.NBD_CMD_FLAG_PAYLOAD_LEN;
  table[commands.NBD_CMD_FLUSH] = fua;
  if (has(f.NBD_FLAG_SEND_TRIM)) table[commands.NBD_CMD_TRIM] = fua;
  if (has(f.NBD_FLAG_SEND_CACHE)) table[commands.NBD_CMD_CACHE] = fua;
  if (has(f.NBD_FLAG_SEND_WRITE_ZEROES)) {
    table[commands.NBD_CMD_WRITE_ZEROES] = fua | c.NBD_CMD_FLAG_NO_HOLE | fastZero;
  }
  if (contextCount > 0) table[commands.NBD_CMD_BLOCK_STATUS] = fua | c.NBD_CMD_FLAG_REQ_ONE | statusPayload;
  return table;
}

const refusals = {
  unknownCommand: { errno: errnos.NBD_EINVAL, message: 'the command is unknown or was not offered' },
  unknownFlag: { errno: errnos.NBD_EINVAL, message: 'the command does not take one of its flags' },
  payloadFlag: {
    errno: errnos.NBD_EINVAL,
    message: 'WRITE carries NBD_CMD_FLAG_PAYLOAD_LEN with extended headers only',
  },
  readOnly: { errno: errnos.NBD_EPERM, message: 'the export is read-only' },
  tooLong: { errno: errnos.NBD_EINVAL, message: 'the request is longer than the maximum payload' },
  misaligned: { errno: errnos.NBD_EINVAL, message: 'offset and length must be multiples of the minimum block size' },
  pastEnd: { errno: errnos.NBD_EINVAL, message: 'the range reaches past the end of the export' },
  noSpace: { errno: errnos.NBD_ENOSPC, message: 'the range reaches past the end of the export' },
  flushRange: { errno: errnos.NBD_EINVAL, message: 'FLUSH takes no offset and no length' },
  statusPayload: { errno: errnos.NBD_EINVAL, message: 'the payload of BLOCK_STATUS names no context, or too many' },
  emptyStatus: { errno: errnos.NBD_EINVAL, message: 'BLOCK_STATUS of nothing' },
} as const satisfies Record<string, RequestRefusal>;

/** The refusal that a server going down gives to everything. */
export const shutdownRefusal: RequestRefusal = {
  errno: errnos.NBD_ESHUTDOWN,
  message: 'the server is shutting down',
};

/** What decides how a stream of requests is to be read. */
export interface RequestStream {
  readonly extended: boolean;
  /** Bytes of a payload beyond which the stream is not followed. */
  readonly payloadBytesMax: number;
}

/**
 * Takes the header at `at` into `header`; gives the bytes of payload that follow it, or, as a text, why the stream cannot
 * be followed any further.
 */
export function takeRequest(
  source: Buffer,
  at: number,
  header: RequestHeader,
  { extended, payloadBytesMax }: RequestStream,
): number | string {
  if (!decodeRequest(source, at, extended, header)) return 'a request does not begin with its magic number';
  const bytes = payloadBytes(header, extended);
  return bytes > payloadBytesMax ? `a request carries ${bytes} bytes of payload` : bytes;
}

/**
 * Nothing if the request may be carried out. DISC is not among the requests validated. With a payload that restricts
 * BLOCK_STATUS the range is not in the header: validateRange sees it later.
 */
export function validate(header: RequestHeader, rules: RequestRules): RequestRefusal | undefined {
  const { type, flags } = header;
  const isWrite =
    type === commands.NBD_CMD_WRITE || type === commands.NBD_CMD_WRITE_ZEROES || type === commands.NBD_CMD_TRIM;
  if (isWrite && rules.readOnly) return refusals.readOnly;
  const allowed = rules.allowedFlags[type];
  if (allowed === undefined) return refusals.unknownCommand;
  if ((flags & ~allowed) !== 0) return refusals.unknownFlag;
  const hasPayloadFlag = (flags & commandFlags.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
  if (type === commands.NBD_CMD_FLUSH) {
    // "For a flush request, length and offset are reserved, and MUST be set to all-zero."
    return header.offset === 0 && header.length === 0 ? undefined : refusals.flushRange;
  }
  if (type === commands.NBD_CMD_WRITE && hasPayloadFlag !== rules.extended) return refusals.payloadFlag;
  if (type === commands.NBD_CMD_BLOCK_STATUS && hasPayloadFlag) {
    const idBytes = header.length - STATUS_PAYLOAD_HEAD_BYTES;
    const fits = idBytes > 0 && idBytes % 4 === 0 && idBytes <= 4 * rules.contextCount;
    return fits ? undefined : refusals.statusPayload;
  }
  return validateRange(header, rules);
}

/** Whether the range of a request of this type lies where it may. */
export function validateRange(
  { type, offset, length }: Pick<RequestHeader, 'type' | 'offset' | 'length'>,
  rules: RequestRules,
): RequestRefusal | undefined {
  const { sizeBytes, minimumBlock } = rules;
  const carriesData = type === commands.NBD_CMD_READ || type === commands.NBD_CMD_WRITE;
  if (carriesData && length > rules.payloadBytesMax) return refusals.tooLong;
  // Written so that no sum can overflow or be rounded.
  if (offset > sizeBytes || length > sizeBytes - offset) {
    const needsSpace = type === commands.NBD_CMD_WRITE || type === commands.NBD_CMD_WRITE_ZEROES;
    return needsSpace ? refusals.noSpace : refusals.pastEnd;
  }
  if (minimumBlock > 1 && (offset % minimumBlock !== 0 || length % minimumBlock !== 0)) return refusals.misaligned;
  if (type === commands.NBD_CMD_BLOCK_STATUS && length === 0) return refusals.emptyStatus;
  return undefined;
}

/** BLOCK_STATUS's payload, extended headers only: how far to look, and the contexts asked for. */
export interface StatusPayload {
  /** Bytes; rounded above 2 ** 53 like a header's length. */
  readonly length: number;
  readonly ids: readonly number[];
}

/** Decodes the payload, whose length `validate` has approved. Undefined if an id is there twice. */
export function decodeStatusPayload(payload: Buffer): StatusPayload | undefined {
  const ids = new Set<number>();
  for (let at = STATUS_PAYLOAD_HEAD_BYTES; at < payload.length; at += 4) ids.add(payload.readUInt32BE(at));
  if (ids.size * 4 !== payload.length - STATUS_PAYLOAD_HEAD_BYTES) return undefined;
  return { length: payload.readUInt32BE(0) * TWO_TO_32 + payload.readUInt32BE(4), ids: [...ids] };
}

/** A payload that names a context which was not selected, or one twice. */
export const statusPayloadRefusal: RequestRefusal = refusals.statusPayload;
