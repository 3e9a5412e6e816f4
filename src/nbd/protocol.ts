/**
 * The NBD protocol's numbers and layouts, names as the specification writes them
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). Extended headers follow its branch
 * `extension-ext-header`. All numbers are big-endian.
 */
import { bytes, struct, u16, u32, u64big } from '../core/struct.ts';

export const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const NBD_REP_MAGIC = 0x3e889045565a9n;
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

/** Handshake flags, and the client's answer to them: the bits are the same. */
export const handshakeFlags = { NBD_FLAG_FIXED_NEWSTYLE: 1 << 0, NBD_FLAG_NO_ZEROES: 1 << 1 } as const;

export const transmissionFlags = {
  NBD_FLAG_HAS_FLAGS: 1 << 0,
  NBD_FLAG_READ_ONLY: 1 << 1,
  NBD_FLAG_SEND_FLUSH: 1 << 2,
  NBD_FLAG_SEND_FUA: 1 << 3,
  NBD_FLAG_SEND_TRIM: 1 << 5,
  NBD_FLAG_SEND_WRITE_ZEROES: 1 << 6,
  NBD_FLAG_SEND_DF: 1 << 7,
  NBD_FLAG_CAN_MULTI_CONN: 1 << 8,
  NBD_FLAG_SEND_CACHE: 1 << 10,
  NBD_FLAG_SEND_FAST_ZERO: 1 << 11,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const;

export const options = {
  NBD_OPT_EXPORT_NAME: 1,
  NBD_OPT_ABORT: 2,
  NBD_OPT_LIST: 3,
  NBD_OPT_STARTTLS: 5,
  NBD_OPT_INFO: 6,
  NBD_OPT_GO: 7,
  NBD_OPT_STRUCTURED_REPLY: 8,
  NBD_OPT_LIST_META_CONTEXT: 9,
  NBD_OPT_SET_META_CONTEXT: 10,
  NBD_OPT_EXTENDED_HEADERS: 11,
} as const;

/** An error reply has bit 31 set. `+`, not `|`: JavaScript's bit operations would make it negative. */
const error31 = (n: number) => 2 ** 31 + n;

export const optionReplies = {
  NBD_REP_ACK: 1,
  NBD_REP_SERVER: 2,
  NBD_REP_INFO: 3,
  NBD_REP_META_CONTEXT: 4,
  NBD_REP_ERR_UNSUP: error31(1),
  NBD_REP_ERR_POLICY: error31(2),
  NBD_REP_ERR_INVALID: error31(3),
  NBD_REP_ERR_TLS_REQD: error31(5),
  NBD_REP_ERR_UNKNOWN: error31(6),
  NBD_REP_ERR_SHUTDOWN: error31(7),
  NBD_REP_ERR_TOO_BIG: error31(9),
  NBD_REP_ERR_EXT_HEADER_REQD: error31(10),
} as const;

export const infos = {
  NBD_INFO_EXPORT: 0,
  NBD_INFO_NAME: 1,
  NBD_INFO_DESCRIPTION: 2,
  NBD_INFO_BLOCK_SIZE: 3,
} as const;

export const commands = {
  NBD_CMD_READ: 0,
  NBD_CMD_WRITE: 1,
  NBD_CMD_DISC: 2,
  NBD_CMD_FLUSH: 3,
  NBD_CMD_TRIM: 4,
  NBD_CMD_CACHE: 5,
  NBD_CMD_WRITE_ZEROES: 6,
  NBD_CMD_BLOCK_STATUS: 7,
} as const;

export const commandFlags = {
  NBD_CMD_FLAG_FUA: 1 << 0,
  NBD_CMD_FLAG_NO_HOLE: 1 << 1,
  NBD_CMD_FLAG_DF: 1 << 2,
  NBD_CMD_FLAG_REQ_ONE: 1 << 3,
  NBD_CMD_FLAG_FAST_ZERO: 1 << 4,
  NBD_CMD_FLAG_PAYLOAD_LEN: 1 << 5,
} as const;

export const NBD_REPLY_FLAG_DONE = 1 << 0;

export const replyTypes = {
  NBD_REPLY_TYPE_NONE: 0,
  NBD_REPLY_TYPE_OFFSET_DATA: 1,
  NBD_REPLY_TYPE_BLOCK_STATUS: 5,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT: 6,
  NBD_REPLY_TYPE_ERROR: 2 ** 15 + 1,
} as const;

export const errnos = {
  NBD_EPERM: 1,
  NBD_EIO: 5,
  NBD_EINVAL: 22,
  NBD_ENOSPC: 28,
  NBD_ENOTSUP: 95,
  NBD_ESHUTDOWN: 108,
} as const;
export type Errno = (typeof errnos)[keyof typeof errnos];

/** Strings (export names, queries, messages) "MUST be no longer than 4096 bytes". */
export const NBD_STRING_BYTES_MAX = 4096;
/** The zeroes behind the answer to NBD_OPT_EXPORT_NAME, for clients that did not decline them. */
export const EXPORT_NAME_PADDING_BYTES = 124;

export const nbdGreeting = struct('nbd_greeting', 'be', 18, [
  ['nbdmagic', u64big],
  ['ihaveopt', u64big],
  ['handshakeFlags', u16],
]);

export const nbdClientFlags = struct('nbd_client_flags', 'be', 4, [['flags', u32]]);

export const nbdOption = struct('nbd_option', 'be', 16, [
  ['magic', u64big], // IHAVEOPT
  ['option', u32],
  ['length', u32], // Bytes of data behind this header.
]);

export const nbdOptionReply = struct('nbd_option_reply', 'be', 20, [
  ['magic', u64big], // NBD_REP_MAGIC
  ['option', u32],
  ['reply', u32],
  ['length', u32],
]);

/** The answer to NBD_OPT_EXPORT_NAME, without its padding. */
export const nbdExportNameReply = struct('nbd_export_name_reply', 'be', 10, [
  ['size', u64big],
  ['transmissionFlags', u16],
]);

export const nbdInfoExport = struct('nbd_info_export', 'be', 12, [
  ['type', u16], // NBD_INFO_EXPORT
  ['size', u64big],
  ['transmissionFlags', u16],
]);

export const nbdInfoBlockSize = struct('nbd_info_block_size', 'be', 14, [
  ['type', u16], // NBD_INFO_BLOCK_SIZE
  ['minimum', u32],
  ['preferred', u32],
  ['maximumPayload', u32],
]);

export const nbdRequest = struct('nbd_request', 'be', 28, [
  ['magic', u32], // NBD_REQUEST_MAGIC
  ['flags', u16], // NBD_CMD_FLAG_*
  ['type', u16], // NBD_CMD_*
  ['cookie', bytes(8)], // Opaque: echoed byte for byte.
  ['offset', u64big], // bigint, so that offsets no device has are seen as they are and refused.
  ['length', u32], // Bytes. A payload follows for WRITE only.
]);

export const nbdExtendedRequest = struct('nbd_extended_request', 'be', 32, [
  ['magic', u32], // NBD_EXTENDED_REQUEST_MAGIC
  ['flags', u16],
  ['type', u16],
  ['cookie', bytes(8)],
  ['offset', u64big],
  ['length', u64big], // Of the payload with NBD_CMD_FLAG_PAYLOAD_LEN, of the effect without.
]);

export const nbdSimpleReply = struct('nbd_simple_reply', 'be', 16, [
  ['magic', u32], // NBD_SIMPLE_REPLY_MAGIC
  ['error', u32],
  ['cookie', bytes(8)],
]);

export const nbdStructuredReply = struct('nbd_structured_reply', 'be', 20, [
  ['magic', u32], // NBD_STRUCTURED_REPLY_MAGIC
  ['flags', u16],
  ['type', u16], // NBD_REPLY_TYPE_*
  ['cookie', bytes(8)],
  ['length', u32], // Of the chunk's payload.
]);

export const nbdExtendedReply = struct('nbd_extended_reply', 'be', 32, [
  ['magic', u32], // NBD_EXTENDED_REPLY_MAGIC
  ['flags', u16],
  ['type', u16],
  ['cookie', bytes(8)],
  ['offset', u64big], // The request's own.
  ['length', u64big],
]);

/** Constant name of a value, for logs; the number itself if it has none. */
export function nameOf(table: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(table).find((name) => table[name] === value) ?? String(value);
}
