import { OverlayError } from '../core/errors.ts';
import { errorCode } from './file-system.ts';

/** Codes that mean: no room now; what is there is untouched, and a later try may succeed. */
const fullCodes: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/** A failed file operation as the error a client's request ends with. `what`: what could not be done, with the path. */
export function overlayFailure(what: string, cause: unknown): OverlayError {
  if (cause instanceof OverlayError) return cause;
  const code = errorCode(cause);
  if (fullCodes.has(code)) {
    return new OverlayError(`${what}: the disk is full; free space on it`, {
      reason: 'full',
      cause,
      details: { code },
    });
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return new OverlayError(`${what}: ${why}`, { reason: 'io', cause, details: { code } });
}
