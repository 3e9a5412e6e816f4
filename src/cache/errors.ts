import { KlosetNbdError } from '../core/errors.ts';

/** A file of the cache is not what was written: whoever asked makes it anew from the store. Never shown to a client. */
export class CacheDamagedError extends KlosetNbdError {
  readonly code = 'CACHE_DAMAGED';
}

/** The cache cannot take a file: full, read-only, gone. Whoever wrote goes on without. */
export class CacheWriteError extends KlosetNbdError {
  readonly code = 'CACHE_WRITE';
}
