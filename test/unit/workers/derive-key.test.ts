/** A store's key, derived where nothing waits for it. */
import type { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/core/errors.ts';
import { toHex } from '../../../src/core/mac.ts';
import { derivationBlocksThread, type KdfParameters } from '../../../src/kloset/codec/key-derivation.ts';
import { deriveKeyInThread } from '../../../src/workers/derive-key.ts';

const salt = Buffer.from('56e3686624ee3b6d7aa470ce36171d20', 'hex');
/** Those of the fixture store `encrypted`: plakar's defaults. */
const parameters: KdfParameters = { name: 'ARGON2ID', time: 4, memoryKiB: 262144, threads: 1, salt, keyBytes: 32 };

it('Argon2id leaves the event loop to others, and its thread ends with it', async () => {
  const workers: Worker[] = [];
  const noteWorker = (worker: Worker) => void workers.push(worker);
  process.on('worker', noteWorker);
  try {
    let turns = 0;
    let isTurning = true;
    const turn = () => {
      turns++;
      if (isTurning) setImmediate(turn);
    };
    turn();
    const key = await deriveKeyInThread(Buffer.from('fixture passphrase 1'), parameters);
    isTurning = false;
    expect(toHex(key.export())).toBe('2a5933e74efed96a855a3cc342effe1adf3ca15e0d2bd1072f77997aa9e3447d');
    // On this thread it would be a handful: WebAssembly computes in one piece.
    expect(turns).toBeGreaterThan(1000);
    expect(workers).toHaveLength(derivationBlocksThread(parameters) ? 1 : 0);
    for (const worker of workers) expect(worker.threadId).toBe(-1);
  } finally {
    process.off('worker', noteWorker);
  }
});

it('what is refused is refused as such, not as a thread that failed', async () => {
  const refused = deriveKeyInThread(Buffer.from('x'), { ...parameters, memoryKiB: 2 ** 40 });
  await expect(refused).rejects.toThrow(UnsupportedError);
});
