/** The kernels in WebAssembly and their twins in TypeScript do the same with every input, malformed ones included. */
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { CorruptStoreError } from '../../src/core/errors.ts';
import { toHex } from '../../src/core/mac.ts';
import { MiB } from '../../src/core/units.ts';
import { createKernels, type Kernels } from '../../src/kloset/codec/kernels.ts';
import { compressLz4Block, randomBytesOf } from '../unit/kloset/codec/store-writer.ts';

let wasm: Kernels;
let twin: Kernels;
beforeAll(async () => {
  wasm = await createKernels('webassembly');
  twin = await createKernels('typescript');
});

const HISTORY_BYTES = 200;

/** Where decoding ended and all of the buffer it wrote to; or undefined if the block was refused. */
function decodeBlock(kernels: Kernels, block: Uint8Array, room: number): { stop: number; hex: string } | undefined {
  const bytes = randomBytesOf(1, HISTORY_BYTES + room + 50);
  const before = toHex(bytes);
  const target = { bytes, start: HISTORY_BYTES, end: HISTORY_BYTES + room, history: 20 };
  try {
    const stop = kernels.decodeLz4Block(block, target);
    expect(toHex(bytes.subarray(stop))).toBe(before.slice(2 * stop));
    return { stop, hex: toHex(bytes) };
  } catch (error) {
    expect(error).toBeInstanceOf(CorruptStoreError);
    return undefined;
  } finally {
    expect(toHex(bytes.subarray(0, HISTORY_BYTES))).toBe(before.slice(0, 2 * HISTORY_BYTES));
    expect(toHex(bytes.subarray(target.end))).toBe(before.slice(2 * target.end));
  }
}

function measureBlock(kernels: Kernels, block: Uint8Array): number | undefined {
  try {
    return kernels.measureLz4Block(block);
  } catch (error) {
    expect(error).toBeInstanceOf(CorruptStoreError);
    return undefined;
  }
}

function expectSame(block: Uint8Array, room: number): void {
  const decoded = decodeBlock(wasm, block, room);
  expect(decoded).toEqual(decodeBlock(twin, block, room));
  const measured = measureBlock(wasm, block);
  expect(measured).toBe(measureBlock(twin, block));
  if (decoded !== undefined) expect(decoded.stop - HISTORY_BYTES).toBe(measured);
}

/** Sequences as the format has them, with lengths, offsets and an end that need not fit. */
const madeUpBlock = fc
  .array(
    fc.record({
      literals: fc.uint8Array({ maxLength: 40 }),
      offset: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.nat(400)),
      length: fc.oneof(fc.nat(40), fc.nat(700)),
    }),
    { maxLength: 12 },
  )
  .chain((sequences) =>
    fc.uint8Array({ maxLength: 60 }).map((last) => {
      const lengthBytes = (length: number) =>
        length < 15 ? [] : [...Array(Math.floor((length - 15) / 255)).fill(255), (length - 15) % 255];
      const block = sequences.flatMap(({ literals, offset, length }) => [
        (Math.min(literals.length, 15) << 4) | Math.min(length, 15),
        ...lengthBytes(literals.length),
        ...literals,
        offset & 255,
        offset >> 8,
        ...lengthBytes(length),
      ]);
      return Uint8Array.from([...block, Math.min(last.length, 15) << 4, ...lengthBytes(last.length), ...last]);
    }),
  );

test('LZ4: made-up sequences', () => {
  fc.assert(fc.property(madeUpBlock, fc.nat(6000), expectSame), { numRuns: 3000 });
});

test('LZ4: arbitrary bytes', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(600), expectSame), { numRuns: 3000 });
});

test('LZ4: every period of a repeated pattern, at every length', () => {
  for (let period = 1; period <= 40; period++) {
    const plain = new Uint8Array(300).map((_, at) => (at % period) * 7 + 1);
    for (let length = 13; length < 300; length += 11) {
      const block = compressLz4Block(plain, { from: 0, end: length, history: 0 });
      const decoded = decodeBlock(wasm, block, length);
      expect(decoded?.hex.slice(2 * HISTORY_BYTES, 2 * (HISTORY_BYTES + length))).toBe(
        toHex(plain.subarray(0, length)),
      );
      expectSame(block, length);
      expectSame(block, length - 1);
    }
  }
});

test('xxHash32', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (data) => {
      expect(wasm.xxh32(data)).toBe(twin.xxh32(data));
    }),
    { numRuns: 500 },
  );
  for (const length of [65535, 65536, 65537, 131072, 1_000_003]) {
    const data = randomBytesOf(length, length);
    expect(wasm.xxh32(data)).toBe(twin.xxh32(data));
  }
  // Of the specification's reference implementation.
  expect(wasm.xxh32(new Uint8Array(0))).toBe(0x02cc5d05);
  expect(twin.xxh32(Buffer.from('Nobody inspects the spammish repetition'))).toBe(0xe2293b2f);
});

test('XOR, at every length, with what lies behind left alone', () => {
  for (let length = 0; length <= 100; length++) {
    const [a, b] = [randomBytesOf(length, length), randomBytesOf(length + 1, length)];
    const [ofWasm, ofTwin] = [wasm, twin].map(({ xor }) => {
      const around = randomBytesOf(3, length + 40);
      xor(a, b, around.subarray(0, length));
      return toHex(around);
    });
    expect(ofWasm).toBe(ofTwin);
    expect(ofTwin!.slice(2 * length)).toBe(toHex(randomBytesOf(3, length + 40)).slice(2 * length));
  }
});

test('counter blocks: the first word counts on and wraps, the rest stays', () => {
  const block = randomBytesOf(4, 16);
  for (const [counter, blocks] of [
    [0, 1],
    [7, 4096],
    [2 ** 32 - 2, 5],
    [2 ** 32 + 3, 2],
  ] as const) {
    const [ofWasm, ofTwin] = [wasm, twin].map((kernels) => toHex(kernels.counters(block, counter, blocks)));
    expect(ofWasm).toBe(ofTwin);
    const expected = Array.from({ length: blocks }, (_, index) => {
      const each = Buffer.from(block);
      each.writeUInt32LE((counter + index) % 2 ** 32, 0);
      return each;
    });
    expect(ofTwin).toBe(toHex(Buffer.concat(expected)));
  }
});

describe('in the workspace', () => {
  test('the same is done as elsewhere, and the block stays as it was', () => {
    fc.assert(
      fc.property(madeUpBlock, fc.nat(3000), fc.nat(70), (block, room, behind) => {
        const outside = randomBytesOf(1, room + behind);
        const { inner, plain } = wasm.workspace(block.byteLength, room + behind)!;
        inner.set(block);
        plain.set(outside);
        const decode = (from: Uint8Array, bytes: Uint8Array) => {
          try {
            return wasm.decodeLz4Block(from, { bytes, start: Math.min(20, room), end: room, history: 0 });
          } catch {
            return undefined;
          }
        };
        const stop = decode(inner, plain);
        const digest = toHex(wasm.blake3!(plain.subarray(0, stop), undefined));
        const made = toHex(plain.subarray(0, stop ?? 0));
        expect(toHex(inner)).toBe(toHex(block));
        // Now with bytes of the caller's, which are copied.
        expect(decode(block, outside)).toBe(stop);
        if (stop === undefined) return;
        expect(toHex(outside.subarray(0, stop))).toBe(made);
        expect(toHex(wasm.blake3!(outside.subarray(0, stop), undefined))).toBe(digest);
      }),
      { numRuns: 1000 },
    );
  });

  test('XOR and BLAKE3, at lengths around blocks, chunks and windows', () => {
    const key = randomBytesOf(8, 32);
    for (const length of [0, 1, 63, 64, 65, 1023, 1024, 1025, 16_384, 65_535, 65_536, 65_537, 200_001, 1_048_576]) {
      const data = randomBytesOf(length, length);
      const { plain } = wasm.workspace(10, length)!;
      plain.set(data);
      expect(toHex(wasm.blake3!(plain, key)), `${length} bytes`).toBe(toHex(wasm.blake3!(data, key)));
      const part = Math.min(length, 65_536);
      const keystream = randomBytesOf(9, part);
      const expected = new Uint8Array(part);
      twin.xor(data.subarray(0, part), keystream, expected);
      wasm.xor(data.subarray(0, part), keystream, plain.subarray(0, part));
      expect(Buffer.compare(plain.subarray(0, part), expected)).toBe(0);
      expect(Buffer.compare(plain.subarray(part), data.subarray(part))).toBe(0);
    }
  });

  test('there is none for what is too large, and none without WebAssembly', () => {
    expect(wasm.workspace(9 * MiB, 9 * MiB)).toBeUndefined();
    expect(twin.workspace(1, 1)).toBeUndefined();
  });
});

test('POLYVAL', () => {
  const pieces = fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 4 });
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), pieces, fc.nat(40), (key, whole, last) => {
      const [a, b] = [wasm, twin].map(({ polyval }) => {
        polyval.start(key);
        const plain: string[] = [];
        for (const [index, bytes] of [...whole.map((blocks) => 16 * blocks), last].entries()) {
          const out = new Uint8Array(bytes);
          polyval.decrypt(randomBytesOf(index, bytes), randomBytesOf(index + 100, Math.ceil(bytes / 16) * 16), out);
          plain.push(toHex(out));
        }
        polyval.block(randomBytesOf(9, 16));
        return { plain, digest: toHex(polyval.digest()) };
      });
      expect(a).toEqual(b);
    }),
    { numRuns: 200 },
  );
});

test('POLYVAL of RFC 8452, appendix A', () => {
  for (const { polyval } of [wasm, twin]) {
    polyval.start(Buffer.from('25629347589242761d31f826ba4b757b', 'hex'));
    polyval.block(Buffer.from('4f4f95668c83dfb6401762bb2d01a262', 'hex'));
    polyval.block(Buffer.from('d1a24ddd2721d006bbe45f20d3c9f362', 'hex'));
    expect(toHex(polyval.digest())).toBe('f7a3b47b846119fae5b7866cf5e5b77e');
  }
});
