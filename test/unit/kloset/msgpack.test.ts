import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CorruptStoreError } from '../../../src/core/errors.ts';
import { decodeMsgpack, type MsgpackValue } from '../../../src/kloset/msgpack.ts';
import { MsgpackRecord } from '../../../src/kloset/record.ts';
import { type Encodable, encodeMsgpack } from '../../support/msgpack-writer.ts';

const decodeHex = (hex: string) => decodeMsgpack(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

describe('a msgpack value', () => {
  it.each<[string, string, MsgpackValue]>([
    ['positive fixint', '7f', 127],
    ['negative fixint', 'e0', -32],
    ['nil', 'c0', undefined],
    ['false', 'c2', false],
    ['true', 'c3', true],
    ['u8', 'cc ff', 255],
    ['u16', 'cd ffff', 65535],
    ['u32', 'ce ffffffff', 4294967295],
    ['u64 that is safe', 'cf 001fffffffffffff', Number.MAX_SAFE_INTEGER],
    ['u64 that is not', 'cf ffffffffffffffff', 18446744073709551615n],
    ['i8', 'd0 80', -128],
    ['i16', 'd1 8000', -32768],
    ['i32', 'd2 80000000', -2147483648],
    ['i64 that is not safe', 'd3 8000000000000000', -9223372036854775808n],
    ['f32', 'ca 3fc00000', 1.5],
    ['f64', 'cb 4002035627253409', 2.2516291673878226],
    ['timestamp of 4 bytes', 'd6 ff 00000001', { seconds: 1, nanoseconds: 0 }],
    ['timestamp of 8 bytes', 'd7 ff b034bafc6b03119d', { seconds: 0x6b03119d, nanoseconds: 739061439 }],
    ['timestamp of 8 bytes beyond 2^32', 'd7 ff 0000000300000000', { seconds: 3 * 2 ** 32, nanoseconds: 0 }],
    ['timestamp of 12 bytes', 'c7 0c ff 1dcd6500 fffffffffffffffe', { seconds: -2, nanoseconds: 500_000_000 }],
    ['another extension', 'd4 05 00', undefined],
    ['array', '92 01 c0', [1, undefined]],
    ['array 16', 'dc 0001 01', [1]],
    ['array 32', 'dd 00000001 01', [1]],
  ])('%s', (_, hex, expected) => {
    expect(decodeHex(hex)).toEqual(expected);
  });

  it.each([
    'a2 fffe',
    'd9 02 fffe',
    'da 0002 fffe',
    'db 00000002 fffe',
    'c4 02 fffe',
    'c5 0002 fffe',
    'c6 00000002 fffe',
  ])('gives the bytes of %s as they are', (hex) => expect(decodeHex(hex)).toEqual(Buffer.from('fffe', 'hex')));

  it.each(['81 a1 6b 01', 'de 0001 a1 6b 01', 'df 00000001 a1 6b 01'])('reads the map %s', (hex) =>
    expect(decodeHex(hex)).toEqual(new Map([['k', 1]])),
  );

  it.each([
    ['nothing', '', /cut short/],
    ['a map key that is no string', '81 01 01', /map key/],
    ['an unused tag', 'c1', /0xc1/],
    ['trailing bytes', '01 02', /1 bytes follow/],
    ['a hostile array count', 'dd ffffffff 00', /count exceeds/],
    ['a hostile map count', 'df ffffffff 00', /count exceeds/],
    ['a hostile length', 'c6 ffffffff 00', /cut short/],
    ['a timestamp of 5 bytes', 'c7 05 ff 0000000000', /timestamp of 5/],
    ['a thousand million nanoseconds', 'c7 0c ff 3b9aca00 0000000000000000', /1000000000 nanoseconds/],
  ])('refuses %s', (_, hex, message) => {
    expect(() => decodeHex(hex)).toThrow(CorruptStoreError);
    expect(() => decodeHex(hex)).toThrow(message);
  });

  it('is nested 32 deep at most', () => {
    expect(() => decodeMsgpack(Buffer.concat([Buffer.alloc(32, 0x91), Buffer.from([1])]))).not.toThrow();
    expect(() => decodeMsgpack(Buffer.concat([Buffer.alloc(33, 0x91), Buffer.from([1])]))).toThrow(/deeper/);
  });

  it('has a million maps at most, though an empty one takes a single byte', () => {
    const list = (count: number) => {
      const bytes = Buffer.alloc(5 + count, 0x80);
      bytes[0] = 0xdd;
      bytes.writeUInt32BE(count, 1);
      return bytes;
    };
    expect(() => decodeMsgpack(list(2 ** 20))).toThrow(/more maps/);
    expect(decodeMsgpack(list(1000))).toHaveLength(1000);
  });
});

const value = fc.letrec<{ any: Encodable }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<Encodable>(null, true, false),
    fc.maxSafeInteger(),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
    fc.double({ noNaN: true, noDefaultInfinity: true }).filter((number) => !Number.isInteger(number)),
    fc.uint8Array(),
    fc.record({ seconds: fc.maxSafeInteger(), nanoseconds: fc.nat(999_999_999) }),
    fc.array(tie('any'), { maxLength: 4 }),
    fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), tie('any'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).any;

/** What the decoder makes of it. */
function decoded(given: Encodable): MsgpackValue {
  if (given === null) return undefined;
  if (typeof given === 'bigint') return Number.isSafeInteger(Number(given)) ? Number(given) : given;
  if (given instanceof Uint8Array) return Buffer.from(given);
  if (Array.isArray(given)) return given.map((element: Encodable) => decoded(element));
  if (typeof given === 'object' && given !== undefined && !('nanoseconds' in given)) {
    return new Map(Object.entries(given).map(([key, field]) => [key, decoded(field as Encodable)]));
  }
  return (Object.is(given, -0) ? 0 : given) as MsgpackValue;
}

describe('whatever is encoded', () => {
  it('decodes to the same, and is refused when cut anywhere', () => {
    fc.assert(
      fc.property(value, fc.nat(), (given, cut) => {
        const bytes = encodeMsgpack(given);
        expect(decodeMsgpack(bytes)).toEqual(decoded(given));
        expect(() => decodeMsgpack(bytes.subarray(0, cut % bytes.byteLength))).toThrow(CorruptStoreError);
      }),
    );
  });

  it('never does more than throw CorruptStoreError, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodeMsgpack(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(CorruptStoreError);
        }
      }),
    );
  });
});

describe('a record', () => {
  const record = MsgpackRecord.decode(
    encodeMsgpack({
      text: 'é',
      number: 5,
      big: 2n ** 60n,
      mac: new Uint8Array(32).fill(1),
      list: [{ a: 1 }],
      nil: null,
    }),
    'thing',
  );

  it('gives zero values for what is missing or nil', () => {
    for (const key of ['missing', 'nil']) {
      expect(record.has(key)).toBe(false);
      expect(record.integer(key)).toBe(0);
      expect(record.integerText(key)).toBe('0');
      expect(record.bytes(key)).toHaveLength(0);
      expect(record.mac(key)).toEqual(new Uint8Array(32));
      expect(record.time(key)).toEqual({ seconds: 0, nanoseconds: 0 });
      expect(record.records(key)).toEqual([]);
      expect(record.record(key).integer('x')).toBe(0);
    }
  });

  it('gives what is there', () => {
    expect(record.text('text')).toBe('é');
    expect(record.integer('number')).toBe(5);
    expect(record.integerText('big')).toBe(String(2n ** 60n));
    expect(record.roundedInteger('big')).toBe(2 ** 60);
    expect(record.records('list')[0]!.integer('a')).toBe(1);
  });

  it.each<[string, () => unknown]>([
    ['thing: field big is not an integer below 2^53', () => record.integer('big')],
    ['thing: field text is not an integer', () => record.integerText('text')],
    ['thing: field text is not a MAC', () => record.mac('text')],
    ['thing: field number is not bytes', () => record.bytes('number')],
    ['thing: field mac is not a timestamp', () => record.time('mac')],
    ['thing: field number is not an array', () => record.array('number')],
    ['thing: field list is not an array of strings', () => record.byteStrings('list')],
    ['thing.text is not a msgpack map', () => record.record('text')],
  ])('says "%s"', (message, read) => {
    expect(read).toThrow(CorruptStoreError);
    expect(read).toThrow(message);
  });
});
