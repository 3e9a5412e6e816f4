import { expect, it } from 'vitest';
import { copyBytes } from '../../../src/core/copy-bytes.ts';
import { seededRandom } from '../../support/overlay-random.ts';

const BYTES = 16 * 1024;
const plain = () => new Uint8Array(BYTES);
const shared = () => new Uint8Array(new SharedArrayBuffer(BYTES));

it.each([
  [plain, plain],
  [plain, shared],
  [shared, plain],
  [shared, shared],
])('copies what set copies, whatever the kind of memory, the length and the alignment (%#)', (from, to) => {
  const random = seededRandom(7);
  const source = from();
  for (let i = 0; i < BYTES; i++) source[i] = i * 31 + (i >> 8);
  for (let round = 0; round < 500; round++) {
    const start = random.below(BYTES);
    const part = source.subarray(start, start + random.below(BYTES - start + 1));
    const at = random.below(BYTES - part.byteLength + 1);
    const [target, expected] = [to().fill(9), plain().fill(9)];
    copyBytes(part, target, at);
    expected.set(part, at);
    expect(Buffer.compare(target, expected), `${part.byteLength} bytes from ${start} to ${at}`).toBe(0);
  }
});

it('refuses what does not fit, as set does', () => {
  for (const length of [1, 4096]) {
    expect(() => copyBytes(new Uint8Array(length), new Uint8Array(length), 1)).toThrow(RangeError);
  }
});
