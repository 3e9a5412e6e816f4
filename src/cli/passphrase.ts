import { readFile } from 'node:fs/promises';
import { exitCodes, UserError } from '../core/errors.ts';
import { runPassphraseCommand } from '../kloset/passphrase-command.ts';
import type { ResolvedStore } from '../kloset/plakar-config.ts';
import type { KeySource } from '../kloset/repository.ts';
import { deriveKeyInThread } from '../workers/derive-key.ts';
import { askPassphrase } from './prompt.ts';

/** Where a passphrase may come from. */
export interface PassphraseSources {
  readonly keyfile: string | undefined;
  /** The store's own settings in plakar's configuration. */
  readonly configured: Pick<ResolvedStore, 'passphrase' | 'passphraseCommand'>;
}

/**
 * The passphrase as plakar finds it: `--keyfile`, else the store's `passphrase` or `passphrase_cmd` in plakar's
 * configuration, else PLAKAR_PASSPHRASE, else a prompt on the terminal. Never from the command line itself.
 */
export function keySource(sources: PassphraseSources): KeySource {
  return { passphrase: () => findPassphrase(sources), deriveKey: deriveKeyInThread };
}

async function findPassphrase({ keyfile, configured }: PassphraseSources): Promise<Uint8Array> {
  if (keyfile !== undefined) return readKeyfile(keyfile);
  if (configured.passphrase !== undefined) return Buffer.from(configured.passphrase);
  if (configured.passphraseCommand !== undefined) return runPassphraseCommand(configured.passphraseCommand);
  const fromEnvironment = process.env.PLAKAR_PASSPHRASE;
  if (fromEnvironment !== undefined && fromEnvironment !== '') return Buffer.from(fromEnvironment);
  if (process.stdin.isTTY && process.stderr.isTTY) return askPassphrase(process.stdin, process.stderr);
  throw new UserError(
    'The store is encrypted and no passphrase was given. Use --keyfile FILE, or the environment variable PLAKAR_PASSPHRASE.',
    { exitCode: exitCodes.passphrase },
  );
}

async function readKeyfile(keyfile: string): Promise<Uint8Array> {
  try {
    const content = await readFile(keyfile);
    // plakar strips one line feed at the end, and nothing else (kloset-format 6.1).
    return content.at(-1) === 0x0a ? content.subarray(0, -1) : content;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new UserError(`The key file ${keyfile} cannot be read (${code}).`, {
      exitCode: exitCodes.passphrase,
      cause: error,
    });
  }
}
