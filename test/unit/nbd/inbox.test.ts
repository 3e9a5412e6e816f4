import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError } from '../../../src/core/errors.ts';
import { Inbox } from '../../../src/nbd/inbox.ts';

describe('Inbox', () => {
  test('gives the same pieces however the stream is cut', () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 });
    const cuts = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(pieces, cuts, (lengths, chunkLengths) => {
        const total = lengths.reduce((sum, length) => sum + length, 0);
        const stream = Buffer.from(Array.from({ length: total }, (_, i) => i & 0xff));
        const inbox = new Inbox();
        const found: Buffer[] = [];
        let at = 0;
        for (let i = 0; at < total; i++) {
          const end = Math.min(total, at + chunkLengths[i % chunkLengths.length]!);
          inbox.push(stream.subarray(at, end));
          at = end;
          while (found.length < lengths.length && inbox.take(lengths[found.length]!)) {
            found.push(inbox.view(lengths[found.length]!));
          }
        }
        expect(found.map((piece) => piece.length)).toEqual(lengths);
        expect(Buffer.concat(found)).toEqual(stream);
        expect(inbox.midPiece).toBe(false);
      }),
    );
  });

  test('a piece within one chunk is a view, one over two is gathered', () => {
    const inbox = new Inbox();
    const chunk = Buffer.from('abcdef');
    inbox.push(chunk);
    expect(inbox.take(4)).toBe(true);
    expect(inbox.view(4).buffer).toBe(chunk.buffer);
    expect(inbox.take(4)).toBe(false);
    expect(inbox.midPiece).toBe(true);
    inbox.push(Buffer.from('ghi'));
    expect(inbox.take(4)).toBe(true);
    expect(inbox.view(4).toString()).toBe('efgh');
    expect(inbox.pendingBytes).toBe(1);
  });

  test('a piece with a room of its own is copied there, and what is kept outlives its chunk', () => {
    const inbox = new Inbox();
    const chunk = Buffer.from('abcdef');
    const room = Buffer.alloc(4);
    inbox.push(chunk);
    expect(inbox.take(4, () => room)).toBe(true);
    expect(inbox.view(4)).toEqual(Buffer.from('abcd'));
    expect(inbox.view(4).buffer).toBe(room.buffer);
    inbox.keep();
    chunk.fill('x');
    expect(inbox.takeRest().toString()).toBe('ef');
    expect(room.toString()).toBe('abcd');
  });

  test('skips what is there, and no more', () => {
    const inbox = new Inbox();
    inbox.push(Buffer.from('abc'));
    expect(inbox.skip(2)).toBe(2);
    expect(inbox.skip(5)).toBe(1);
    expect(inbox.skip(5)).toBe(0);
  });

  test('reserves nothing for a piece of which no byte has come', () => {
    const inbox = new Inbox();
    expect(inbox.take(2 ** 40)).toBe(false);
    expect(inbox.midPiece).toBe(false);
  });

  test('takes no chunk while bytes of the last one are left', () => {
    const inbox = new Inbox();
    inbox.push(Buffer.from('abc'));
    expect(() => inbox.push(Buffer.from('d'))).toThrow(AssertionError);
  });
});
