/** The one place where errors become NBD error numbers. A client gets only the number: the log gets all. */
import { AssertionError, type KlosetNbdError, OverlayError } from '../core/errors.ts';
import { type Errno, errnos } from './protocol.ts';

/** Which number a failed request gets. */
export function errnoOf(error: unknown): Errno {
  if (error instanceof OverlayError && error.reason === 'full') return errnos.NBD_ENOSPC;
  // "It also SHOULD map the EDQUOT and EFBIG errors to NBD_ENOSPC" (spec, "Error values").
  const { code } = error as { code?: unknown };
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') return errnos.NBD_ENOSPC;
  return errnos.NBD_EIO;
}

/**
 * Whether the error shows a bug in this program: then nothing it says can be trusted and it stops serving. A TypeError
 * or ReferenceError is one, like a failed assertion; a RangeError may be memory that ran out.
 */
export function isBug(error: unknown): boolean {
  return error instanceof AssertionError || error instanceof TypeError || error instanceof ReferenceError;
}

/** The error as log fields: its kind, its details, what caused it; all the way down. */
export function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { thrown: String(error) };
  const { code, details } = error as Partial<KlosetNbdError>;
  return {
    name: error.name,
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(details === undefined ? {} : { details }),
    ...(isBug(error) && error.stack !== undefined ? { stack: error.stack } : {}),
    ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }),
  };
}
