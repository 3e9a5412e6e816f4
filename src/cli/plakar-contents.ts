import { tmpdir } from 'node:os';
import type { ChunkStore } from '../core/chunk-store.ts';
import type { Decoder } from '../core/decoder.ts';
import type { Log } from '../core/log.ts';
import { PlakarCatChunkStore } from '../source/plakar-cat-chunk-store.ts';

/** File contents from the installed plakar's `cat`, for `--source plakar`. */
export function plakarContents(
  options: { readonly plakar: string; readonly keyfile: string | undefined; readonly tempDir: string | undefined },
  log: Log,
): (parts: { decoder: Decoder; location: string }) => Promise<ChunkStore> {
  return ({ decoder, location }) =>
    PlakarCatChunkStore.open({
      plakar: { command: options.plakar, location, keyfile: options.keyfile },
      decoder,
      log,
      spool: { directory: options.tempDir ?? tmpdir() },
    });
}
