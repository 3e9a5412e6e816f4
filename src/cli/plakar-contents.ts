import { tmpdir } from 'node:os';
import type { Log } from '../core/log.ts';
import type { ContentSource } from '../exports/open-store.ts';
import { PlakarCatChunkStore } from '../source/plakar-cat-chunk-store.ts';
import { encrypts } from './overlay-options.ts';

/** File contents from the installed plakar's `cat`, for `--source plakar`. */
export function plakarContents(
  options: {
    readonly plakar: string;
    readonly location: string;
    readonly keyfile: string | undefined;
    readonly tempDir: string | undefined;
    readonly overlayEncryption: 'auto' | 'off';
  },
  log: Log,
): ContentSource {
  return ({ decoder, counters, isEncrypted }) =>
    PlakarCatChunkStore.open({
      plakar: { command: options.plakar, location: options.location, keyfile: options.keyfile },
      decoder,
      counters,
      log,
      spool: { directory: options.tempDir ?? tmpdir(), encrypt: encrypts(options, isEncrypted) },
    });
}
