import { readFile } from 'node:fs/promises';
import { exitCodes, UserError } from '../core/errors.ts';
import type { KeySource } from '../kloset/repository.ts';
import { deriveKeyInThread } from '../workers/derive-key.ts';

/** The passphrase as plakar finds it: `--keyfile`, else PLAKAR_PASSPHRASE. Never from the command line itself. */
export function keySource({ keyfile }: { readonly keyfile: string | undefined }): KeySource {
  return { passphrase: () => findPassphrase(keyfile), deriveKey: deriveKeyInThread };
}

async function findPassphrase(keyfile: string | undefined): Promise<Uint8Array> {
  if (keyfile !== undefined) return readKeyfile(keyfile);
  const fromEnvironment = process.env.PLAKAR_PASSPHRASE;
  if (fromEnvironment !== undefined && fromEnvironment !== '') return Buffer.from(fromEnvironment);
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
