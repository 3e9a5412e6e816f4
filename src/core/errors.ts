/** What an operator may read about an error: plain values, never secrets, never buffers. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | undefined>>;

interface ErrorExtras {
  readonly details?: ErrorDetails;
  readonly cause?: unknown;
}

/**
 * Base of every error this project throws on purpose. Callers branch on the class or on `code`, never on the message;
 * `message` is one line for an operator: what happened and what to do next.
 */
export abstract class KlosetNbdError extends Error {
  abstract readonly code: string;
  readonly details: ErrorDetails;

  constructor(message: string, { details = {}, cause }: ErrorExtras = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.details = details;
  }
}

/** Exit codes: plakar's where it has one (sysexits' numbers). */
export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 64,
  damagedData: 65,
  noStore: 66,
  passphrase: 77,
  version: 78,
} as const;

/** The operator asked for something that cannot be; printed as one line, without a stack. */
export class UserError extends KlosetNbdError {
  readonly code = 'USER';
  readonly exitCode: number;

  constructor(message: string, { exitCode = exitCodes.usage, ...extras }: ErrorExtras & { exitCode?: number } = {}) {
    super(message, extras);
    this.exitCode = exitCode;
  }
}

/** The store, or a peer, uses something this version does not read. Names what was found and what is read. */
export class UnsupportedError extends KlosetNbdError {
  readonly code = 'UNSUPPORTED';
}

/** A client broke the NBD protocol; its connection is closed, nobody else's. */
export class ProtocolError extends KlosetNbdError {
  readonly code = 'PROTOCOL';
}

/** Stored bytes are not what their MAC, length or structure says. Never served. */
export class CorruptStoreError extends KlosetNbdError {
  readonly code = 'CORRUPT_STORE';
}

/** The store, or the program that reads it, did not answer. Trying again later may help. */
export class StoreUnavailableError extends KlosetNbdError {
  readonly code = 'STORE_UNAVAILABLE';
}

/** The overlay cannot take or return a block. `reason` decides the errno a client gets. */
export class OverlayError extends KlosetNbdError {
  readonly code = 'OVERLAY';
  readonly reason: 'full' | 'io' | 'damaged';

  constructor(message: string, { reason, ...extras }: ErrorExtras & { reason: 'full' | 'io' | 'damaged' }) {
    super(message, extras);
    this.reason = reason;
  }
}

/** A broken invariant: a bug in this program, not in its input. */
export class AssertionError extends KlosetNbdError {
  readonly code = 'ASSERTION';
}

/** Throws AssertionError unless `condition` holds. For invariants only: input is checked with the errors above. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
