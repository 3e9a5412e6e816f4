/** Entry of a worker thread of the pool: decodes chunks. */
import { workerData } from 'node:worker_threads';
import { type CodecParameters, createCodec } from '../kloset/codec/codec.ts';
import { decodeChecked } from './check-chunk.ts';
import { type DecodeOutcome, type DecodeTask, toOutcome } from './message.ts';

const codec = await createCodec(workerData as CodecParameters);

export default function decode({ stored, target, mac }: DecodeTask): DecodeOutcome {
  try {
    decodeChecked(codec, stored, target, mac);
    return undefined;
  } catch (error) {
    return toOutcome(error);
  }
}
