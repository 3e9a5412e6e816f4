/** What reading a local file can fail with, and whether it can pass: a directory may be a network's, or a FUSE mount. */
import { StoreUnavailableError } from '../core/errors.ts';
import { TransientStoreError } from './remote-store.ts';

/** errno(3) of a device or mount that is in trouble, or of a process that has too much open. */
const PASSING_CODES: readonly string[] = [
  ...['EIO', 'EREMOTEIO', 'ESTALE', 'ENXIO', 'ENODEV', 'ETIMEDOUT', 'EHOSTDOWN', 'EHOSTUNREACH', 'ENETDOWN'],
  ...['ENETUNREACH', 'ENOTCONN', 'ECONNABORTED', 'ECONNREFUSED', 'ECONNRESET', 'EAGAIN', 'EBUSY', 'EINTR'],
  ...['EMFILE', 'ENFILE', 'ENOMEM'],
];

/** Whether a file is not there; its file system may not be, either. */
export function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** An error of the file system as one of ours; any other error as it is. */
export function toStoreError(error: unknown, what: string): Error {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) return error as Error;
  const message = `${what} cannot be read (${code})`;
  return PASSING_CODES.includes(code)
    ? new TransientStoreError(message, { cause: error, details: { reason: code } })
    : new StoreUnavailableError(message, { cause: error, details: { reason: code } });
}
