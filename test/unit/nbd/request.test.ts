import { describe, expect, test } from 'vitest';
import { MiB } from '../../../src/core/units.ts';
import { commandFlags as c, commands, transmissionFlags as f } from '../../../src/nbd/protocol.ts';
import {
  allowedCommandFlags,
  decodeStatusPayload,
  payloadBytes,
  type RequestHeader,
  type RequestRules,
  validate,
} from '../../../src/nbd/request.ts';
import { be32, be64 } from '../../support/nbd-client.ts';

const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH, NBD_CMD_TRIM } = commands;
const { NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS } = commands;
const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;
const SIZE = 64 * MiB;
const all = Object.values(f).reduce((sum, flag) => sum | flag, 0) & ~f.NBD_FLAG_READ_ONLY;

function rules(overrides: Partial<RequestRules> & { advertised?: number } = {}): RequestRules {
  const { advertised = all, ...rest } = overrides;
  return {
    sizeBytes: SIZE,
    readOnly: (advertised & f.NBD_FLAG_READ_ONLY) !== 0,
    extended: false,
    payloadBytesMax: 32 * MiB,
    minimumBlock: 1,
    contextCount: 2,
    allowedFlags: allowedCommandFlags(advertised, 2),
    ...rest,
  };
}

function header(type: number, offset = 0, length = 512, flags = 0): RequestHeader {
  return { type, flags, offset, length, cookieHigh: 0, cookieLow: 0, offsetHigh: 0, offsetLow: 0 };
}

function errno(request: RequestHeader, given: RequestRules = rules()): number {
  return validate(request, given)?.errno ?? 0;
}

describe('validate', () => {
  test.each([
    ['READ', NBD_CMD_READ, EINVAL],
    ['WRITE', NBD_CMD_WRITE, ENOSPC],
    ['TRIM', NBD_CMD_TRIM, EINVAL],
    ['CACHE', NBD_CMD_CACHE, EINVAL],
    ['WRITE_ZEROES', NBD_CMD_WRITE_ZEROES, ENOSPC],
    ['BLOCK_STATUS', NBD_CMD_BLOCK_STATUS, EINVAL],
  ])('%s: up to the last byte, and one past it', (_, type, pastEnd) => {
    expect(errno(header(type, SIZE - 512, 512))).toBe(0);
    expect(errno(header(type, SIZE - 1, 1))).toBe(0);
    for (const [offset, length] of [
      [SIZE - 511, 512],
      [SIZE, 1],
      [SIZE + 1, 0],
      [2 ** 53, 512],
      [2 ** 63, 512],
      [2 ** 64 - 512, 512],
      [2 ** 64 - 1, 1],
    ] as const) {
      expect([offset, length, errno(header(type, offset, length))]).toEqual([offset, length, pastEnd]);
    }
  });

  test('lengths near 2^64, which extended headers can say', () => {
    expect(errno(header(NBD_CMD_TRIM, 0, 2 ** 64 - 1), rules({ extended: true }))).toBe(EINVAL);
    expect(errno(header(NBD_CMD_WRITE_ZEROES, 512, 2 ** 64 - 512), rules({ extended: true }))).toBe(ENOSPC);
    const huge = rules({ extended: true, sizeBytes: 2 ** 52 });
    expect(errno(header(NBD_CMD_TRIM, 0, 2 ** 52), huge)).toBe(0);
    expect(errno(header(NBD_CMD_TRIM, 4096, 2 ** 52 - 4095), huge)).toBe(EINVAL);
  });

  test('data: 32 MiB, and a byte more', () => {
    for (const type of [NBD_CMD_READ, NBD_CMD_WRITE]) {
      expect(errno(header(type, 0, 32 * MiB))).toBe(0);
      expect(errno(header(type, 0, 32 * MiB + 1))).toBe(EINVAL);
    }
    for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS]) {
      expect(errno(header(type, 0, SIZE))).toBe(0);
    }
  });

  test('nothing at all is allowed, but its status has no answer', () => {
    for (const type of [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE]) {
      expect(errno(header(type, 0, 0))).toBe(0);
      expect(errno(header(type, SIZE, 0))).toBe(0);
    }
    expect(errno(header(NBD_CMD_BLOCK_STATUS, 0, 0))).toBe(EINVAL);
  });

  test('a minimum block holds for every range', () => {
    const given = rules({ minimumBlock: 512 });
    expect(errno(header(NBD_CMD_READ, 512, 1024), given)).toBe(0);
    expect(errno(header(NBD_CMD_READ, 511, 1024), given)).toBe(EINVAL);
    expect(errno(header(NBD_CMD_WRITE, 512, 1023), given)).toBe(EINVAL);
    expect(errno(header(NBD_CMD_TRIM, 1, 512), given)).toBe(EINVAL);
  });

  test('FLUSH takes no range', () => {
    expect(errno(header(NBD_CMD_FLUSH, 0, 0))).toBe(0);
    expect(errno(header(NBD_CMD_FLUSH, 0, 1))).toBe(EINVAL);
    expect(errno(header(NBD_CMD_FLUSH, 1, 0))).toBe(EINVAL);
  });

  test('unknown commands', () => {
    for (const type of [8, 9, 0x7f, 0xffff]) expect(errno(header(type, 0, 0))).toBe(EINVAL);
  });

  test('every flag goes with its commands, and with no other', () => {
    const allowed: Record<number, number> = {
      [NBD_CMD_READ]: c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_DF,
      [NBD_CMD_WRITE]: c.NBD_CMD_FLAG_FUA,
      [NBD_CMD_TRIM]: c.NBD_CMD_FLAG_FUA,
      [NBD_CMD_CACHE]: c.NBD_CMD_FLAG_FUA,
      [NBD_CMD_WRITE_ZEROES]: c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_NO_HOLE | c.NBD_CMD_FLAG_FAST_ZERO,
      [NBD_CMD_BLOCK_STATUS]: c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_REQ_ONE,
    };
    const compact = all & ~f.NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    for (const [type, mask] of Object.entries(allowed)) {
      for (let bit = 0; bit < 16; bit++) {
        const result = errno(header(Number(type), 0, 512, 1 << bit), rules({ advertised: compact }));
        expect([type, bit, result]).toEqual([type, bit, (mask & (1 << bit)) === 0 ? EINVAL : 0]);
      }
    }
  });

  test('what was not advertised is refused', () => {
    const bare = rules({
      advertised: f.NBD_FLAG_HAS_FLAGS,
      allowedFlags: allowedCommandFlags(f.NBD_FLAG_HAS_FLAGS, 0),
    });
    for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS]) {
      expect(errno(header(type), bare)).toBe(EINVAL);
    }
    expect(errno(header(NBD_CMD_READ, 0, 512, c.NBD_CMD_FLAG_FUA), bare)).toBe(EINVAL);
    expect(errno(header(NBD_CMD_READ, 0, 512, c.NBD_CMD_FLAG_DF), bare)).toBe(EINVAL);
    expect(errno(header(NBD_CMD_READ), bare)).toBe(0);
  });

  test('a read-only export says so, whatever else is wrong', () => {
    const given = rules({ advertised: f.NBD_FLAG_HAS_FLAGS | f.NBD_FLAG_READ_ONLY });
    for (const type of [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES]) {
      expect(errno(header(type, SIZE, 512, 0x8001), given)).toBe(EPERM);
    }
    expect(errno(header(NBD_CMD_READ), given)).toBe(0);
    expect(errno(header(NBD_CMD_FLUSH, 0, 0), given)).toBe(0);
  });
});

describe('payloads', () => {
  const P = c.NBD_CMD_FLAG_PAYLOAD_LEN;
  const extended = rules({ extended: true });

  test('follow WRITE in compact requests, and the flag in extended ones', () => {
    expect(payloadBytes(header(NBD_CMD_WRITE, 0, 99), false)).toBe(99);
    expect(payloadBytes(header(NBD_CMD_TRIM, 0, 99, P), false)).toBe(0);
    expect(payloadBytes(header(NBD_CMD_WRITE, 0, 99), true)).toBe(0);
    expect(payloadBytes(header(NBD_CMD_TRIM, 0, 99, P), true)).toBe(99);
  });

  test('WRITE must carry the flag with extended headers, and must not without', () => {
    expect(errno(header(NBD_CMD_WRITE, 0, 99, P), extended)).toBe(0);
    expect(errno(header(NBD_CMD_WRITE, 0, 99), extended)).toBe(EINVAL);
    expect(errno(header(NBD_CMD_WRITE, 0, 99, P))).toBe(EINVAL);
    expect(errno(header(NBD_CMD_TRIM, 0, 99, P), extended)).toBe(EINVAL);
  });

  test('BLOCK_STATUS names one to all contexts', () => {
    const status = (length: number, given = extended) => errno(header(NBD_CMD_BLOCK_STATUS, 0, length, P), given);
    expect([8, 11, 12, 14, 16, 20, 2 ** 40].map((length) => status(length))).toEqual([
      EINVAL,
      EINVAL,
      0,
      EINVAL,
      0,
      EINVAL,
      EINVAL,
    ]);
    const unoffered = all & ~f.NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    expect(status(12, rules({ extended: true, advertised: unoffered }))).toBe(EINVAL);
  });

  test('decodeStatusPayload: the length, the contexts, and none twice', () => {
    const length = be64(2n ** 40n);
    expect(decodeStatusPayload(Buffer.concat([length, be32(2), be32(1)]))).toEqual({ length: 2 ** 40, ids: [2, 1] });
    expect(decodeStatusPayload(Buffer.concat([length, be32(2), be32(2)]))).toBeUndefined();
  });
});
