/** From a well-formed input to a hostile one: lengths, counts, cuts, repeats and noise. */
import type { Random } from '../support/overlay-random.ts';

/** Lengths and counts that overflow, wrap or ask for more memory than there is. */
const HOSTILE_NUMBERS = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
].concat([2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]);
/** Bytes that an input grows to at most: what is wrong with a parser shows in small ones. */
const INPUT_BYTES_MAX = 256 * 1024;

/** One of the samples with up to eight changes; now and then as it is, or nothing but noise. */
export function mutate(samples: readonly Uint8Array[], random: Random): Uint8Array {
  if (random.chance(0.02)) return random.fill(new Uint8Array(random.below(300)));
  const isSound = random.chance(0.03);
  let input = Buffer.from(samples[random.below(samples.length)]!);
  if (isSound) return input;
  for (let changes = 1 + random.below(8); changes > 0; changes--) input = change(input, samples, random);
  return input.subarray(0, INPUT_BYTES_MAX);
}

function change(input: Buffer, samples: readonly Uint8Array[], random: Random): Buffer<ArrayBuffer> {
  const copy = Buffer.from(input);
  const at = random.below(copy.length + 1);
  const length = random.below(Math.min(64, copy.length - at) + 1);
  switch (random.below(7)) {
    case 0: // A bit.
      if (at < copy.length) copy[at]! ^= 1 << random.below(8);
      return copy;
    case 1: // A byte, from among those that begin things.
      if (at < copy.length) copy[at] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0xdd, 0xdf, 0xc6][random.below(8)]!;
      return copy;
    case 2: // A number.
      return writeNumber(copy, at, random);
    case 3: // Cut.
      return copy.subarray(0, at);
    case 4: // Something taken out.
      return Buffer.concat([copy.subarray(0, at), copy.subarray(at + length)]);
    case 5: // Something said twice.
      return Buffer.concat([copy.subarray(0, at + length), copy.subarray(at)]);
    default: {
      // A piece of another sample.
      const other = samples[random.below(samples.length)]!;
      const from = random.below(other.byteLength + 1);
      return Buffer.concat([copy.subarray(0, at), other.subarray(from, from + 64), copy.subarray(at)]);
    }
  }
}

function writeNumber(copy: Buffer<ArrayBuffer>, at: number, random: Random): Buffer<ArrayBuffer> {
  const bytes = [1, 2, 4, 8][random.below(4)]!;
  if (at + bytes > copy.length) return copy;
  const value = BigInt.asUintN(8 * bytes, HOSTILE_NUMBERS[random.below(HOSTILE_NUMBERS.length)]!);
  const digits = Buffer.alloc(8);
  if (random.chance(0.5)) {
    digits.writeBigUInt64LE(value);
    copy.set(digits.subarray(0, bytes), at);
  } else {
    digits.writeBigUInt64BE(value);
    copy.set(digits.subarray(8 - bytes), at);
  }
  return copy;
}
