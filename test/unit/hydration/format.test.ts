import { createSecretKey } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  decodeHeader,
  decodeRecord,
  encodeBlob,
  encodeHeader,
  encodeSnapshot,
  isSealed,
  isWhole,
  RECORD_BYTES,
} from '../../../src/hydration/format.ts';

const key = createSecretKey(Buffer.alloc(32, 7));
const otherKey = createSecretKey(Buffer.alloc(32, 8));
const mac = Buffer.alloc(32, 0xaa);
const blob = { type: 9, mac, sha256: Buffer.alloc(32), offset: 2 ** 40, file: 12, length: 345 };
const snapshot = {
  ...{
    isComplete: true,
    id: mac,
    chunkBytes: 2 ** 41,
    doneBytes: 12,
    chunks: 13,
    damaged: 1,
    timeMs: 1_700_000_000_000,
  },
};

describe('records', () => {
  test('lie as the description says', () => {
    const record = Buffer.from(encodeBlob(blob, key));
    expect(record).toHaveLength(RECORD_BYTES);
    expect([record.readUInt32LE(0), record.readUInt32LE(4), record.readUInt32LE(80), record.readUInt32LE(84)]).toEqual([
      1, 9, 12, 345,
    ]);
    expect(record.subarray(8, 40)).toEqual(mac);
    expect(record.readBigUInt64LE(72)).toBe(2n ** 40n);
    const note = Buffer.from(encodeSnapshot(snapshot, key));
    expect([note.readUInt32LE(0), note.readUInt32LE(4)]).toEqual([2, 2]);
    expect(note.readBigUInt64LE(40)).toBe(2n ** 41n);
    expect(note.readBigUInt64LE(72)).toBe(1_700_000_000_000n);
  });

  test('come back as they were', () => {
    expect(decodeRecord(encodeBlob(blob, key))).toMatchObject({
      blob: { ...blob, mac: new Uint8Array(mac), sha256: new Uint8Array(32) },
    });
    expect(decodeRecord(encodeSnapshot(snapshot, key))).toMatchObject({
      snapshot: { ...snapshot, id: new Uint8Array(mac) },
    });
  });

  test('a flipped bit anywhere in front of the padding is noticed', () => {
    for (const whole of [encodeBlob(blob, key), encodeSnapshot(snapshot, key)]) {
      expect(isWhole(whole) && isSealed(whole, key)).toBe(true);
      for (let bit = 0; bit < 108 * 8; bit++) {
        const flipped = new Uint8Array(whole);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        expect(isWhole(flipped)).toBe(false);
      }
    }
  });

  test("those of another store's key are not sealed", () => {
    expect(isSealed(encodeBlob(blob, key), otherKey)).toBe(false);
  });
});

describe('the header', () => {
  test('keeps the salt, and notices every flipped bit', () => {
    const salt = Buffer.alloc(32, 5);
    const header = encodeHeader(salt);
    expect(decodeHeader(header)).toEqual(new Uint8Array(salt));
    for (let bit = 0; bit < header.length * 8; bit++) {
      const flipped = new Uint8Array(header);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => decodeHeader(flipped)).toThrow();
    }
  });

  test('says which version it has', () => {
    const header = Buffer.from(encodeHeader(Buffer.alloc(32)));
    header.writeUInt32LE(2, 8);
    expect(() => decodeHeader(header)).toThrow(/version 2/);
    expect(() => decodeHeader(header.subarray(0, 63))).toThrow();
  });
});
