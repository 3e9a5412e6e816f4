/** Entry of a worker thread of the pool: decodes chunks. */
import { workerData } from 'node:worker_threads';
import { type Outcome, outcomeOf } from '../core/outcome.ts';
import { type CodecParameters, createCodec, requireMac } from '../kloset/codec/codec.ts';
import type { ChunkTask } from './message.ts';

const codec = await createCodec(workerData as CodecParameters);

export default function decode({ stored, target, mac }: ChunkTask): Promise<Outcome<void>> {
  return outcomeOf(() =>
    stored === undefined ? requireMac(codec, target, mac) : codec.decodeChecked(stored, target, mac),
  );
}
