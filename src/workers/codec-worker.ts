/** Entry of a worker thread of the pool: decodes chunks. */
import { workerData } from 'node:worker_threads';
import { type Outcome, outcomeOf } from '../core/outcome.ts';
import { type CodecParameters, createCodec } from '../kloset/codec/codec.ts';
import { decodeChecked, requireMac } from './check-chunk.ts';
import type { ChunkTask } from './message.ts';

const codec = await createCodec(workerData as CodecParameters);

export default function decode({ stored, target, mac }: ChunkTask): Promise<Outcome<void>> {
  return outcomeOf(() =>
    stored === undefined ? requireMac(codec, target, mac) : decodeChecked(codec, stored, target, mac),
  );
}
