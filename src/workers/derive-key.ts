import type { KeyObject } from 'node:crypto';
import { Piscina } from 'piscina';
import { exitCodes, UserError } from '../core/errors.ts';
import { type Outcome, resultOf } from '../core/outcome.ts';
import { programFile } from '../core/program-file.ts';
import { derivationBlocksThread, deriveKey, type KdfParameters } from '../kloset/codec/key-derivation.ts';

/** What the worker is asked; it answers with the key. */
export interface DeriveTask {
  readonly passphrase: Uint8Array;
  readonly parameters: KdfParameters;
}

/**
 * `deriveKey` of kloset/codec, in a thread of its own where it would keep this one busy for seconds. The thread ends
 * afterwards, and with it the hundreds of megabytes that Argon2 takes.
 */
export async function deriveKeyInThread(passphrase: Uint8Array, parameters: KdfParameters): Promise<KeyObject> {
  if (!derivationBlocksThread(parameters)) return deriveKey(passphrase, parameters);
  const pool = new Piscina<DeriveTask, Outcome<KeyObject>>({
    filename: programFile('workers/key-worker.js'),
    minThreads: 1,
    maxThreads: 1,
  });
  try {
    return resultOf(await run(pool, { passphrase, parameters }));
  } finally {
    await pool.close();
  }
}

async function run(pool: Piscina<DeriveTask, Outcome<KeyObject>>, task: DeriveTask): Promise<Outcome<KeyObject>> {
  try {
    return await pool.run(task);
  } catch (error) {
    // The thread died, most likely for want of memory: Argon2 takes 256 MiB by default, and CONFIG can ask for more.
    throw new UserError(`The store's key could not be derived: ${(error as Error).message}. Is there enough memory?`, {
      exitCode: exitCodes.failure,
      cause: error,
    });
  }
}
