/**
 * Option haggling as a pure decision: state and option in, replies and next state out. What it cannot know - which
 * exports there are, whether a writer holds one - it asks for, and goes on when told.
 *
 *   greeting -> client flags -> [ option -> replies ]* -> transmission
 *                    |                |                        (GO, EXPORT_NAME)
 *                    |                +-> tls -> [ option ...  (STARTTLS: begins anew, flags apart)
 *                    +----------------+-> close                (ABORT, EXPORT_NAME refused, unknown client flags)
 *
 *   style: simple -> structured (NBD_OPT_STRUCTURED_REPLY)
 *          simple | structured -> extended (NBD_OPT_EXTENDED_HEADERS), never back
 *
 * Clients without fixed newstyle may send NBD_OPT_EXPORT_NAME only; the others are honoured for them too, as the
 * specification allows.
 */
import type { ExportSummary } from '../core/export-catalog.ts';
import { BLOCK_SIZE } from '../core/units.ts';
import { listContexts, type MetaContext, selectContexts } from './meta-context.ts';
import {
  encodeContextReply,
  encodeErrorReply,
  encodeInfoString,
  encodeReply,
  encodeServerReply,
  type InfoQuery,
  parseContextQuery,
  parseInfoQuery,
  parseString,
} from './option-data.ts';
import {
  EXPORT_NAME_PADDING_BYTES,
  handshakeFlags,
  IHAVEOPT,
  infos,
  NBDMAGIC,
  nameOf,
  nbdExportNameReply,
  nbdGreeting,
  nbdInfoBlockSize,
  nbdInfoExport,
  optionReplies,
  options,
  transmissionFlags,
} from './protocol.ts';
import { judgeByTls, type TlsState } from './starttls.ts';

/** How replies are framed in transmission. */
export type ReplyStyle = 'simple' | 'structured' | 'extended';

/** A context a client selected, under the number replies name it by. */
export interface SelectedContext {
  readonly id: number;
  readonly context: MetaContext;
}

export interface HaggleState {
  /** The client declined the zeroes behind the answer to NBD_OPT_EXPORT_NAME. */
  readonly noZeroes: boolean;
  readonly tls: TlsState;
  readonly style: ReplyStyle;
  /** From the last NBD_OPT_SET_META_CONTEXT, if it succeeded: good for this export name only. */
  readonly selected: { readonly exportName: string; readonly contexts: readonly SelectedContext[] } | undefined;
}

/** What a client has agreed on when transmission begins. */
export interface Session {
  readonly style: ReplyStyle;
  readonly transmissionFlags: number;
  readonly contexts: readonly SelectedContext[];
}

/** What is told about an export that exists. */
export interface ExportFacts {
  readonly name: string;
  readonly description: string;
  /** Bytes. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly supports: Readonly<{ fua: boolean; trim: boolean; multiConn: boolean; fastZero: boolean; cache: boolean }>;
  readonly contexts: readonly MetaContext[];
  /** Bytes: what requests must be multiples of, and what one may carry at most. */
  readonly blockSize: Readonly<{ minimum: number; maximumPayload: number }>;
}

/** Why an export is not to be had: the reply type, and a line for people. */
export interface Refusal {
  readonly reply: number;
  readonly message: string;
}

export type Next =
  | { readonly to: 'options'; readonly state: HaggleState }
  /** A TLS handshake; `state` holds once that is done. */
  | { readonly to: 'tls'; readonly state: HaggleState }
  | { readonly to: 'transmission'; readonly session: Session }
  | { readonly to: 'close'; readonly reason: string };

export interface Answer {
  readonly replies: readonly Uint8Array[];
  readonly next: Next;
}

/** Something to look up before the option can be answered. */
export type Question =
  | { readonly ask: 'list'; answer(exports: readonly ExportSummary[]): Answer }
  | {
      readonly ask: 'export';
      readonly name: string;
      /** The client wants to use the export, not only to know about it. */
      readonly enter: boolean;
      answer(outcome: ExportFacts | Refusal): Answer;
    };

export type Decision = Answer | Question;

export interface Option {
  readonly option: number;
  readonly data: Uint8Array;
}

const allHandshakeFlags = handshakeFlags.NBD_FLAG_FIXED_NEWSTYLE | handshakeFlags.NBD_FLAG_NO_ZEROES;

/** The server's first bytes. */
export function greeting(): Uint8Array {
  return nbdGreeting.encode({ nbdmagic: NBDMAGIC, ihaveopt: IHAVEOPT, handshakeFlags: allHandshakeFlags });
}

/** The state after the client's flags; undefined if it set one that was not offered: "the server MUST drop the TCP connection". */
export function begin(clientFlags: number, tls: Exclude<TlsState, 'established'>): HaggleState | undefined {
  if ((clientFlags & ~allHandshakeFlags) !== 0) return undefined;
  return {
    noZeroes: (clientFlags & handshakeFlags.NBD_FLAG_NO_ZEROES) !== 0,
    tls,
    style: 'simple',
    selected: undefined,
  };
}

/** Answers one option, or says what must be known first. */
export function decide(state: HaggleState, { option, data }: Option): Decision {
  const byTls = judgeByTls(state.tls, option, data.byteLength);
  if (byTls === 'start') return startTls(state);
  if (byTls !== undefined) return refuse(state, option, byTls);
  switch (option) {
    case options.NBD_OPT_EXPORT_NAME:
      return decideExportName(state, data);
    case options.NBD_OPT_ABORT: // With data too: "a server SHOULD ignore any data sent by the client".
      return { replies: [ack(option)], next: { to: 'close', reason: 'the client sent NBD_OPT_ABORT' } };
    case options.NBD_OPT_LIST:
      if (data.byteLength > 0) return refuse(state, option, invalid('NBD_OPT_LIST takes no data'));
      return {
        ask: 'list',
        answer: (exports) => ({
          replies: [
            ...exports.map(({ name, description }) => encodeServerReply(option, name, description)),
            ack(option),
          ],
          next: { to: 'options', state },
        }),
      };
    case options.NBD_OPT_INFO:
    case options.NBD_OPT_GO:
      return decideInfo(state, option, data);
    case options.NBD_OPT_STRUCTURED_REPLY:
    case options.NBD_OPT_EXTENDED_HEADERS:
      return decideStyle(state, option, data);
    case options.NBD_OPT_LIST_META_CONTEXT:
    case options.NBD_OPT_SET_META_CONTEXT:
      return decideContexts(state, option, data);
    default:
      return refuseUnknown(state, option);
  }
}

/** The answer to any option that is not looked at, be it for its length or because the server is going down. */
export function refuse(state: HaggleState, option: number, { reply, message }: Refusal): Answer {
  // SET_META_CONTEXT "replaces all previously-set metadata contexts (including when this command fails)".
  const next = option === options.NBD_OPT_SET_META_CONTEXT ? { ...state, selected: undefined } : state;
  // EXPORT_NAME has no error reply: "the server MUST terminate the session".
  if (option === options.NBD_OPT_EXPORT_NAME) return { replies: [], next: { to: 'close', reason: message } };
  return { replies: [encodeErrorReply(option, reply, message)], next: { to: 'options', state: next } };
}

/** The answer to an option that is larger than what is read. */
export function refuseTooBig(state: HaggleState, option: number, dataBytes: number): Answer {
  const byTls = judgeByTls(state.tls, option, dataBytes);
  return refuse(state, option, byTls === undefined || byTls === 'start' ? refusals.tooBig : byTls);
}

export const refusals = {
  tooBig: { reply: optionReplies.NBD_REP_ERR_TOO_BIG, message: 'the option carries too much data' },
  shutdown: { reply: optionReplies.NBD_REP_ERR_SHUTDOWN, message: 'the server is shutting down' },
} as const satisfies Record<string, Refusal>;

/** What was agreed on in clear may have been put in by somebody in between: it is forgotten. */
function startTls({ noZeroes }: HaggleState): Answer {
  const state: HaggleState = { noZeroes, tls: 'established', style: 'simple', selected: undefined };
  return { replies: [ack(options.NBD_OPT_STARTTLS)], next: { to: 'tls', state } };
}

function ack(option: number): Uint8Array {
  return encodeReply(option, optionReplies.NBD_REP_ACK);
}

function invalid(message: string): Refusal {
  return { reply: optionReplies.NBD_REP_ERR_INVALID, message };
}

function refuseUnknown(state: HaggleState, option: number): Answer {
  const message = `${nameOf(options, option)} is not supported`;
  return refuse(state, option, { reply: optionReplies.NBD_REP_ERR_UNSUP, message });
}

function decideExportName(state: HaggleState, data: Uint8Array): Decision {
  const option = options.NBD_OPT_EXPORT_NAME;
  const name = parseString(data);
  if (name === undefined) return refuse(state, option, invalid('the export name is not a string'));
  // "A client that has negotiated extended headers MUST NOT use this option."
  if (state.style === 'extended') return refuse(state, option, invalid('extended headers want NBD_OPT_GO'));
  return {
    ask: 'export',
    name,
    enter: true,
    answer(outcome) {
      if ('reply' in outcome) return refuse(state, option, outcome);
      const session = sessionFor(state, name, outcome);
      const reply = nbdExportNameReply.encode({
        size: BigInt(outcome.sizeBytes),
        transmissionFlags: session.transmissionFlags,
      });
      const replies = state.noZeroes ? [reply] : [reply, new Uint8Array(EXPORT_NAME_PADDING_BYTES)];
      return { replies, next: { to: 'transmission', session } };
    },
  };
}

function decideInfo(state: HaggleState, option: number, data: Uint8Array): Decision {
  const query = parseInfoQuery(data);
  if (query === undefined) return refuse(state, option, invalid(`the data of ${nameOf(options, option)} is malformed`));
  return {
    ask: 'export',
    name: query.name,
    enter: option === options.NBD_OPT_GO,
    answer(outcome) {
      if ('reply' in outcome) return refuse(state, option, outcome);
      const session = sessionFor(state, query.name, outcome);
      return {
        replies: [...encodeInfos(option, query, outcome, session.transmissionFlags), ack(option)],
        next: option === options.NBD_OPT_GO ? { to: 'transmission', session } : { to: 'options', state },
      };
    },
  };
}

/** NBD_INFO_EXPORT always, the others if asked for: a client must not be told what it may not understand. */
function encodeInfos(option: number, query: InfoQuery, facts: ExportFacts, flags: number): Uint8Array[] {
  const { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE } = infos;
  const { NBD_REP_INFO } = optionReplies;
  const size = BigInt(facts.sizeBytes);
  const replies = [
    encodeReply(option, NBD_REP_INFO, nbdInfoExport.encode({ type: NBD_INFO_EXPORT, size, transmissionFlags: flags })),
  ];
  if (query.infos.has(NBD_INFO_NAME)) replies.push(encodeInfoString(option, NBD_INFO_NAME, facts.name));
  if (query.infos.has(NBD_INFO_DESCRIPTION)) {
    replies.push(encodeInfoString(option, NBD_INFO_DESCRIPTION, facts.description));
  }
  if (query.infos.has(NBD_INFO_BLOCK_SIZE)) {
    const constraints = { type: NBD_INFO_BLOCK_SIZE, preferred: BLOCK_SIZE, ...facts.blockSize };
    replies.push(encodeReply(option, NBD_REP_INFO, nbdInfoBlockSize.encode(constraints)));
  }
  return replies;
}

function decideStyle(state: HaggleState, option: number, data: Uint8Array): Decision {
  if (data.byteLength > 0) return refuse(state, option, invalid(`${nameOf(options, option)} takes no data`));
  if (option === options.NBD_OPT_EXTENDED_HEADERS) {
    return { replies: [ack(option)], next: { to: 'options', state: { ...state, style: 'extended' } } };
  }
  if (state.style === 'extended') {
    const reply = optionReplies.NBD_REP_ERR_EXT_HEADER_REQD;
    return refuse(state, option, { reply, message: 'extended headers were negotiated and take precedence' });
  }
  return { replies: [ack(option)], next: { to: 'options', state: { ...state, style: 'structured' } } };
}

function decideContexts(state: HaggleState, option: number, data: Uint8Array): Decision {
  if (state.style === 'simple') return refuse(state, option, invalid('negotiate structured replies first'));
  const query = parseContextQuery(data);
  if (query === undefined) return refuse(state, option, invalid(`the data of ${nameOf(options, option)} is malformed`));
  return {
    ask: 'export',
    name: query.name,
    enter: false,
    answer(outcome) {
      if ('reply' in outcome) return refuse(state, option, outcome);
      if (option === options.NBD_OPT_LIST_META_CONTEXT) {
        // "The metadata context ID in these replies is reserved and SHOULD be set to zero."
        const found = listContexts(outcome.contexts, query.queries);
        const replies = found.map(({ name }) => encodeContextReply(option, 0, name));
        return { replies: [...replies, ack(option)], next: { to: 'options', state } };
      }
      const contexts = selectContexts(outcome.contexts, query.queries).map((context, i) => ({ id: i + 1, context }));
      const replies = contexts.map(({ id, context }) => encodeContextReply(option, id, context.name));
      const selected = { exportName: query.name, contexts };
      return { replies: [...replies, ack(option)], next: { to: 'options', state: { ...state, selected } } };
    },
  };
}

function sessionFor(state: HaggleState, name: string, facts: ExportFacts): Session {
  const selected = state.selected?.exportName === name ? state.selected.contexts : [];
  // Looked up once more: behind the same name there may be another device by now.
  const contexts = selected.filter(({ context }) => facts.contexts.includes(context));
  return { style: state.style, contexts, transmissionFlags: flagsFor(state.style, facts, contexts.length > 0) };
}

/** Only what the device means: each flag is a promise. */
function flagsFor(style: ReplyStyle, { readOnly, supports }: ExportFacts, hasContexts: boolean): number {
  const f = transmissionFlags;
  let flags = f.NBD_FLAG_HAS_FLAGS | f.NBD_FLAG_SEND_FLUSH;
  if (readOnly) flags |= f.NBD_FLAG_READ_ONLY;
  // Nobody writes to a read-only export: all connections see the same.
  if (readOnly || supports.multiConn) flags |= f.NBD_FLAG_CAN_MULTI_CONN;
  if (!readOnly) {
    flags |= f.NBD_FLAG_SEND_WRITE_ZEROES;
    if (supports.fua) flags |= f.NBD_FLAG_SEND_FUA;
    if (supports.trim) flags |= f.NBD_FLAG_SEND_TRIM;
    if (supports.fastZero) flags |= f.NBD_FLAG_SEND_FAST_ZERO;
  }
  if (supports.cache) flags |= f.NBD_FLAG_SEND_CACHE;
  if (style !== 'simple') flags |= f.NBD_FLAG_SEND_DF;
  if (style === 'extended' && hasContexts) flags |= f.NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  return flags;
}
