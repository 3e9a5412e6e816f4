/** Every parser of bytes from outside, and what is well-formed for each. */
import { decodeMsgpack } from '../../src/kloset/msgpack.ts';
import { encodeMsgpack, Str } from '../support/msgpack-writer.ts';
import type { FuzzTarget } from './fuzz.ts';

const msgpack: FuzzTarget = {
  name: 'msgpack',
  samples: [
    encodeMsgpack({ version: 1, keys: [new Str('a'), new Str('b')], time: { seconds: 5, nanoseconds: 6 } }),
    encodeMsgpack([1, -1, 2n ** 63n, 0.5, true, null, [[[]]], { a: { b: new Uint8Array(40) } }]),
  ],
  run: decodeMsgpack,
};

export const targets: readonly FuzzTarget[] = [msgpack];
