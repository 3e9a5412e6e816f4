/**
 * How other processes of the same user talk to a running server: over a Unix socket, mode 0600, in a directory that is
 * the server's. Lines of JSON in UTF-8, each ended by a line feed; a reply of bytes has them behind its line.
 *
 *   server   {"protocol":1,"pid":4711}                                  once, when a client connects
 *   client   {"id":1,"command":"clone.list","arguments":{}}             any number, ids of the client's choice
 *   server   {"id":1,"value":…}                                         the result
 *            {"id":1,"bytes":4096} and 4096 bytes                       a result of bytes
 *            {"id":1,"code":"USER","message":"…","exitCode":64}         a failure: core/outcome.ts
 *
 * Replies come in any order. What a connection holds (a view of a clone) is given back when it ends.
 */
import type { Outcome } from '../core/outcome.ts';

export const CONTROL_PROTOCOL = 1;

export interface ControlGreeting {
  readonly protocol: number;
  readonly pid: number;
}

export interface ControlRequest {
  readonly id: number;
  readonly command: string;
  readonly arguments: ControlArguments;
}

export type ControlArguments = Readonly<Record<string, unknown>>;

export type ControlReply = { readonly id: number } & (Outcome<unknown> | { readonly bytes: number });

/** A request's line; nothing that is asked for has more than some names in it. */
export const REQUEST_LINE_BYTES_MAX = 64 * 1024;
/** A reply's line: a list of every file of a snapshot that was written to. */
export const REPLY_LINE_BYTES_MAX = 512 * 1024 * 1024;
/** Bytes of one reply of bytes. */
export const REPLY_BYTES_MAX = 8 * 1024 * 1024;
/** Requests of one connection being worked on; the next ones wait. */
export const REQUESTS_IN_FLIGHT_MAX = 32;
