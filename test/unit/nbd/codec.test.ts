/** The codecs written by hand for the hot path say what the tables say. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FramePool } from '../../../src/nbd/frame-pool.ts';
import type { ReplyStyle } from '../../../src/nbd/handshake.ts';
import {
  commands,
  errnos,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  nbdExtendedReply,
  nbdExtendedRequest,
  nbdRequest,
  nbdSimpleReply,
  nbdStructuredReply,
  replyTypes,
} from '../../../src/nbd/protocol.ts';
import { encodeError, encodeStatus, sealData, sealDone } from '../../../src/nbd/reply.ts';
import { decodeRequest, type RequestHeader } from '../../../src/nbd/request.ts';

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const cookie = fc.uint8Array({ minLength: 8, maxLength: 8 });

function blankHeader(): RequestHeader {
  return { type: 0, flags: 0, cookieHigh: 0, cookieLow: 0, offset: 0, offsetHigh: 0, offsetLow: 0, length: 0 };
}

function headerFor(type: number, offset: bigint, length: number, cookieBytes: Uint8Array): RequestHeader {
  const request = nbdRequest.encode({ magic: NBD_REQUEST_MAGIC, type, cookie: cookieBytes, offset, length });
  const header = blankHeader();
  expect(decodeRequest(Buffer.from(request), 0, false, header)).toBe(true);
  return header;
}

describe('decodeRequest', () => {
  test('reads a compact request as the table does, wherever it lies', () => {
    fc.assert(
      fc.property(u16, u16, cookie, u64, u32, fc.nat(40), (flags, type, cookieBytes, offset, length, at) => {
        const source = Buffer.alloc(at + nbdRequest.sizeBytes);
        nbdRequest.write(source, { magic: NBD_REQUEST_MAGIC, flags, type, cookie: cookieBytes, offset, length }, at);
        const header = blankHeader();
        expect(decodeRequest(source, at, false, header)).toBe(true);
        expect(header).toMatchObject({ flags, type, length, offset: Number(offset) });
        expect((BigInt(header.offsetHigh) << 32n) | BigInt(header.offsetLow)).toBe(offset);
        expect((BigInt(header.cookieHigh) << 32n) | BigInt(header.cookieLow)).toBe(
          Buffer.from(cookieBytes).readBigUInt64BE(),
        );
      }),
    );
  });

  test('reads an extended request as the table does', () => {
    fc.assert(
      fc.property(u16, u16, cookie, u64, u64, (flags, type, cookieBytes, offset, length) => {
        const fields = { magic: NBD_EXTENDED_REQUEST_MAGIC, flags, type, cookie: cookieBytes, offset, length };
        const header = blankHeader();
        expect(decodeRequest(Buffer.from(nbdExtendedRequest.encode(fields)), 0, true, header)).toBe(true);
        expect(header).toMatchObject({ flags, type, offset: Number(offset), length: Number(length) });
      }),
    );
  });

  test.each([false, true])('tells another magic, the other header included (extended: %s)', (extended) => {
    const other = Buffer.alloc(32);
    other.writeUInt32BE(extended ? NBD_REQUEST_MAGIC : NBD_EXTENDED_REQUEST_MAGIC);
    expect(decodeRequest(other, 0, extended, blankHeader())).toBe(false);
    expect(decodeRequest(Buffer.alloc(32), 0, extended, blankHeader())).toBe(false);
  });
});

describe('replies', () => {
  const cookieBytes = Uint8Array.of(0xff, 1, 2, 3, 0x84, 5, 6, 7);
  const offset = 2n ** 40n + 512n;

  test('READ in each style: the table’s header, then the data', () => {
    const header = headerFor(commands.NBD_CMD_READ, offset, 5, cookieBytes);
    const seal = (style: ReplyStyle) => {
      const frame = new FramePool(0).take(5);
      frame.data(5).set([9, 8, 7, 6, 5]);
      return sealData(frame, style, header);
    };
    const simple = seal('simple');
    expect(nbdSimpleReply.read(simple)).toEqual({ magic: NBD_SIMPLE_REPLY_MAGIC, error: 0, cookie: cookieBytes });
    expect([...simple.subarray(16)]).toEqual([9, 8, 7, 6, 5]);

    const chunk = { flags: 1, type: replyTypes.NBD_REPLY_TYPE_OFFSET_DATA, cookie: cookieBytes };
    const structured = seal('structured');
    expect(nbdStructuredReply.read(structured)).toEqual({ ...chunk, magic: NBD_STRUCTURED_REPLY_MAGIC, length: 13 });
    expect(structured.readBigUInt64BE(20)).toBe(offset);
    expect([...structured.subarray(28)]).toEqual([9, 8, 7, 6, 5]);

    const extended = seal('extended');
    expect(nbdExtendedReply.read(extended)).toEqual({ ...chunk, magic: NBD_EXTENDED_REPLY_MAGIC, offset, length: 13n });
    expect(extended.readBigUInt64BE(32)).toBe(offset);
    expect([...extended.subarray(40)]).toEqual([9, 8, 7, 6, 5]);
  });

  test('READ of nothing carries no chunk of data, which would have to describe a byte', () => {
    const header = headerFor(commands.NBD_CMD_READ, 0n, 0, cookieBytes);
    const reply = sealData(new FramePool(0).take(0), 'structured', header);
    const { type, flags, length } = nbdStructuredReply.read(reply);
    expect({ type, flags, length }).toEqual({ type: replyTypes.NBD_REPLY_TYPE_NONE, flags: 1, length: 0 });
  });

  test('success without data: simple where the style allows it', () => {
    const header = headerFor(commands.NBD_CMD_WRITE, offset, 5, cookieBytes);
    const frame = new FramePool(0).take(0);
    const simple = { magic: NBD_SIMPLE_REPLY_MAGIC, error: 0, cookie: cookieBytes };
    expect(nbdSimpleReply.read(sealDone(frame, 'simple', header))).toEqual(simple);
    expect(nbdSimpleReply.read(sealDone(frame, 'structured', header))).toEqual(simple);
    expect(nbdExtendedReply.read(sealDone(frame, 'extended', header))).toEqual({
      magic: NBD_EXTENDED_REPLY_MAGIC,
      flags: 1,
      type: replyTypes.NBD_REPLY_TYPE_NONE,
      cookie: cookieBytes,
      offset,
      length: 0n,
    });
  });

  test('errors carry a text where there is room for one, cut to 512 bytes between characters', () => {
    const header = headerFor(commands.NBD_CMD_READ, 2n ** 64n - 1n, 5, cookieBytes);
    const refusal = { errno: errnos.NBD_EINVAL, message: `x${'é'.repeat(400)}` };
    const simple = encodeError('simple', header, refusal);
    expect(nbdSimpleReply.read(simple).error).toBe(22);
    expect(simple.length).toBe(16);
    const extended = encodeError('extended', header, refusal);
    expect(nbdExtendedReply.read(extended)).toMatchObject({ offset: 2n ** 64n - 1n, length: 6n + 511n });
    expect(extended.readUInt32BE(32)).toBe(22);
    expect(extended.readUInt16BE(36)).toBe(511);
    expect(extended.subarray(38).toString()).toBe(`x${'é'.repeat(255)}`);
  });

  test('block status: one chunk a context, the last one ends the reply', () => {
    const header = headerFor(commands.NBD_CMD_BLOCK_STATUS, offset, 8192, cookieBytes);
    const statuses = [
      {
        id: 1,
        runs: [
          { length: 4096, flags: 3 },
          { length: 4096, flags: 0 },
        ],
      },
      { id: 2, runs: [{ length: 8192, flags: 1 }] },
    ];
    const structured = encodeStatus('structured', header, statuses);
    expect(nbdStructuredReply.read(structured)).toMatchObject({ flags: 0, type: 5, length: 20 });
    expect(nbdStructuredReply.read(structured, 40)).toMatchObject({ flags: 1, type: 5, length: 12 });
    expect(structured.subarray(20, 40).toString('hex')).toBe('00000001000010000000000300001000' + '00000000');
    const extended = encodeStatus('extended', header, statuses);
    expect(nbdExtendedReply.read(extended)).toMatchObject({ flags: 0, type: 6, length: 40n });
    expect(extended.subarray(32, 56).toString('hex')).toBe(
      '0000000100000002' + '0000000000001000' + '0000000000000003',
    );
  });
});
