/** The relays by themselves, cut at every byte. */
import { describe, expect, test } from 'vitest';
import { InFlight, InFlightAccount } from '../../../src/nbd/in-flight.ts';
import {
  commandFlags,
  commands,
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
} from '../../../src/nbd/protocol.ts';
import { superviseLimits } from '../../../src/supervise/limits.ts';
import { ReplyRelay } from '../../../src/supervise/reply-relay.ts';
import { RequestRelay } from '../../../src/supervise/request-relay.ts';
import { Unanswered } from '../../../src/supervise/unanswered.ts';

const { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH, NBD_CMD_DISC, NBD_CMD_BLOCK_STATUS } = commands;

function cookie(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

interface RequestSketch {
  readonly type: number;
  readonly cookie: bigint;
  readonly length?: number;
  readonly payload?: Buffer;
}

function encodeRequest({ type, cookie: id, payload, length = payload?.length ?? 0 }: RequestSketch, extended: boolean) {
  const flags = extended && payload !== undefined ? commandFlags.NBD_CMD_FLAG_PAYLOAD_LEN : 0;
  const fields = { type, flags, cookie: cookie(id), offset: 4096n };
  const header = extended
    ? nbdExtendedRequest.encode({ ...fields, magic: NBD_EXTENDED_REQUEST_MAGIC, length: BigInt(length) })
    : nbdRequest.encode({ ...fields, magic: NBD_REQUEST_MAGIC, length });
  return Buffer.concat([header, payload ?? Buffer.alloc(0)]);
}

const simpleReply = (id: bigint, data = Buffer.alloc(0), error = 0) =>
  Buffer.concat([nbdSimpleReply.encode({ magic: NBD_SIMPLE_REPLY_MAGIC, error, cookie: cookie(id) }), data]);
const chunk = (id: bigint, { done, data }: { done: boolean; data: Buffer }, extended = false) => {
  const fields = { flags: done ? 1 : 0, type: 1, cookie: cookie(id) };
  const header = extended
    ? nbdExtendedReply.encode({
        ...fields,
        magic: NBD_EXTENDED_REPLY_MAGIC,
        offset: 4096n,
        length: BigInt(data.length),
      })
    : nbdStructuredReply.encode({ ...fields, magic: NBD_STRUCTURED_REPLY_MAGIC, length: data.length });
  return Buffer.concat([header, data]);
};
const bytesOf = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7) % 251));

function open({ extended = false, limits = {} as Partial<typeof superviseLimits> } = {}) {
  const all = { ...superviseLimits, ...limits };
  const account = new InFlightAccount(new InFlight({ ...all, repliesInFlightBytesMax: all.bytesMax }), () =>
    requests.pump(),
  );
  const unanswered = new Unanswered(account);
  const toWorker: Buffer[] = [];
  const toClient: Buffer[] = [];
  const breaches: string[] = [];
  const breach = (message: string) => void breaches.push(message);
  // Copied: a view shows later changes too, and what was sent must not have any.
  const requests = new RequestRelay(
    { forward: (bytes) => void toWorker.push(Buffer.from(bytes)), breach },
    unanswered,
    extended,
  );
  const replies = new ReplyRelay({ forward: (bytes) => void toClient.push(Buffer.from(bytes)), breach }, unanswered);
  return {
    requests,
    replies,
    unanswered,
    breaches,
    sent: () => Buffer.concat(toWorker),
    received: () => Buffer.concat(toClient),
  };
}

const sketches: readonly RequestSketch[] = [
  { type: NBD_CMD_READ, cookie: 0xffffffffffffffffn, length: 100 },
  { type: NBD_CMD_WRITE, cookie: 5n, payload: bytesOf(10) },
  { type: NBD_CMD_FLUSH, cookie: 5n }, // The same cookie twice: no business of ours.
  { type: NBD_CMD_WRITE, cookie: 1n, payload: bytesOf(100) },
  { type: NBD_CMD_READ, cookie: 0n, length: 1 },
];
const encodeAll = (extended: boolean, own = false) =>
  Buffer.concat(sketches.map((s, i) => encodeRequest(own ? { ...s, cookie: BigInt(i) } : s, extended)));

describe.each([false, true])('requests, extended headers: %s', (extended) => {
  test('go on with cookies of our own, wherever the stream is cut, and what was sent can be sent again', () => {
    const headerBytes = extended ? 32 : 28;
    const expected = encodeAll(extended, true);
    for (let cut = 0; cut <= expected.length; cut++) {
      const relay = open({ extended });
      const input = encodeAll(extended);
      relay.requests.receive(input.subarray(0, cut));
      const sent = relay.sent();
      expect(sent.equals(expected.subarray(0, sent.length))).toBe(true);
      expect(cut - sent.length).toBeLessThan(headerBytes); // Nothing waits but a header that is not complete.
      expect(Buffer.concat(relay.requests.replay()).equals(sent)).toBe(true);
      relay.requests.receive(input.subarray(cut));
      expect(relay.sent().equals(expected)).toBe(true);
      expect(Buffer.concat(relay.requests.replay()).equals(expected)).toBe(true);
    }
  });

  test('go on when they come byte by byte', () => {
    const relay = open({ extended });
    for (const byte of encodeAll(extended)) relay.requests.receive(Buffer.of(byte));
    expect(relay.sent().equals(encodeAll(extended, true))).toBe(true);
    expect(Buffer.concat(relay.requests.replay()).equals(relay.sent())).toBe(true);
  });
});

describe('requests', () => {
  test('wait for room, in order, and are sent when replies make some', () => {
    const relay = open({ limits: { requestsPerConnectionMax: 2 } });
    const expected = encodeAll(false, true);
    relay.requests.receive(encodeAll(false));
    expect(relay.requests.isStalled).toBe(true);
    expect(relay.sent().length).toBe(28 + 38);
    relay.replies.receive(simpleReply(0n, bytesOf(100)));
    relay.requests.pump();
    expect(relay.sent().length).toBe(28 + 38 + 28);
    // The third has the slot of the first.
    expect(
      relay
        .sent()
        .subarray(66)
        .equals(encodeRequest({ type: NBD_CMD_FLUSH, cookie: 0n }, false)),
    ).toBe(true);
    for (let answered = 0; answered < 4; answered++) {
      const [slot] = [0n, 1n].filter((id) => relay.unanswered.find(0, Number(id)) !== undefined);
      const { type, length } = relay.unanswered.find(0, Number(slot))!;
      relay.replies.receive(simpleReply(slot!, type === NBD_CMD_READ ? bytesOf(length) : undefined));
      relay.requests.pump();
    }
    expect(relay.requests.isStalled).toBe(false);
    expect(relay.sent().length).toBe(expected.length);
    expect(relay.unanswered.count).toBe(0);
  });

  test('are replayed in the order they came in, not in that of their slots', () => {
    const relay = open();
    for (const id of [1n, 2n, 3n]) relay.requests.receive(encodeRequest({ type: NBD_CMD_FLUSH, cookie: id }, false));
    relay.replies.receive(simpleReply(0n));
    relay.requests.receive(encodeRequest({ type: NBD_CMD_WRITE, cookie: 4n, payload: bytesOf(3) }, false));
    const expected = [
      encodeRequest({ type: NBD_CMD_FLUSH, cookie: 1n }, false),
      encodeRequest({ type: NBD_CMD_FLUSH, cookie: 2n }, false),
      encodeRequest({ type: NBD_CMD_WRITE, cookie: 0n, payload: bytesOf(3) }, false),
    ];
    expect(Buffer.concat(relay.requests.replay())).toEqual(Buffer.concat(expected));
  });

  test('DISC goes on as it came, ends the input, and is replayed last', () => {
    const relay = open();
    const disconnect = encodeRequest({ type: NBD_CMD_DISC, cookie: 77n }, false);
    const flush = encodeRequest({ type: NBD_CMD_FLUSH, cookie: 0n }, false);
    relay.requests.receive(Buffer.concat([flush, disconnect, flush]));
    expect(relay.requests.isOver).toBe(true);
    expect(relay.sent()).toEqual(Buffer.concat([flush, disconnect]));
    expect(Buffer.concat(relay.requests.replay())).toEqual(Buffer.concat([flush, disconnect]));
  });

  test('a payload that no worker takes goes on and is not kept', () => {
    const relay = open({ limits: { bytesMax: 1024 } });
    const header = encodeRequest({ type: NBD_CMD_WRITE, cookie: 9n, length: 32 * 1024 * 1024 + 1 }, false);
    relay.requests.receive(Buffer.concat([header, bytesOf(5000)]));
    expect(relay.sent().length).toBe(28 + 5000);
    expect(relay.unanswered.allReplayable).toBe(false);
  });

  test.each([
    ['a wrong magic number', Buffer.alloc(28)],
    ['a payload beyond all reason', encodeRequest({ type: NBD_CMD_WRITE, cookie: 9n, length: 2 ** 31 }, false)],
  ])('%s ends the connection, and nothing of it goes on', (_, bytes) => {
    const relay = open();
    relay.requests.receive(bytes);
    relay.requests.receive(encodeRequest({ type: NBD_CMD_FLUSH, cookie: 0n }, false));
    expect(relay.breaches).toHaveLength(1);
    expect(relay.sent().length).toBe(0);
  });
});

/** Three requests under way, and replies to them: as the worker sends them, as the client gets them, one by one. */
const conversations = {
  simple: {
    extended: false,
    fromWorker: [simpleReply(2n), simpleReply(0n, bytesOf(100)), simpleReply(1n, undefined, 5)],
    toClient: [simpleReply(12n), simpleReply(10n, bytesOf(100)), simpleReply(11n, undefined, 5)],
  },
  structured: {
    extended: false,
    fromWorker: [
      chunk(0n, { done: true, data: bytesOf(108) }),
      simpleReply(2n),
      Buffer.concat([
        chunk(1n, { done: false, data: bytesOf(20) }),
        chunk(1n, { done: false, data: Buffer.alloc(0) }),
        chunk(1n, { done: true, data: bytesOf(30) }),
      ]),
    ],
    toClient: [
      chunk(10n, { done: true, data: bytesOf(108) }),
      simpleReply(12n),
      Buffer.concat([
        chunk(11n, { done: false, data: bytesOf(20) }),
        chunk(11n, { done: false, data: Buffer.alloc(0) }),
        chunk(11n, { done: true, data: bytesOf(30) }),
      ]),
    ],
  },
  extended: {
    extended: true,
    fromWorker: [
      Buffer.concat([
        chunk(1n, { done: false, data: bytesOf(8) }, true),
        chunk(1n, { done: true, data: Buffer.alloc(0) }, true),
      ]),
      chunk(2n, { done: true, data: Buffer.alloc(0) }, true),
      chunk(0n, { done: true, data: bytesOf(108) }, true),
    ],
    toClient: [
      Buffer.concat([
        chunk(11n, { done: false, data: bytesOf(8) }, true),
        chunk(11n, { done: true, data: Buffer.alloc(0) }, true),
      ]),
      chunk(12n, { done: true, data: Buffer.alloc(0) }, true),
      chunk(10n, { done: true, data: bytesOf(108) }, true),
    ],
  },
} as const;

describe.each(Object.entries(conversations))('replies, %s', (_, { extended, fromWorker, toClient }) => {
  const ask = () => {
    const relay = open({ extended });
    const types = [NBD_CMD_READ, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLUSH];
    types.forEach((type, i) => {
      const length = type === NBD_CMD_FLUSH ? 0 : 100;
      relay.requests.receive(encodeRequest({ type, cookie: BigInt(10 + i), length }, extended));
    });
    return relay;
  };
  const all = Buffer.concat(toClient);
  const boundaries = toClient.map((__, i) => Buffer.concat(toClient.slice(0, i)).length);
  /** Bytes of whole replies among the first `cut`. */
  const wholeAt = (cut: number) => Math.max(0, ...[...boundaries, all.length].filter((end) => end <= cut));

  test('go on whole with their cookies back, wherever the stream is cut', () => {
    for (let cut = 0; cut <= all.length; cut++) {
      const relay = ask();
      const input = Buffer.concat(fromWorker);
      relay.replies.receive(input.subarray(0, cut));
      expect(relay.received().equals(all.subarray(0, wholeAt(cut)))).toBe(true);
      relay.replies.receive(input.subarray(cut));
      expect(relay.received().equals(all)).toBe(true);
      expect(relay.unanswered.count).toBe(0);
    }
  });

  test('go on when they come byte by byte', () => {
    const relay = ask();
    for (const byte of Buffer.concat(fromWorker)) relay.replies.receive(Buffer.of(byte));
    expect(relay.received().equals(all)).toBe(true);
  });

  test('a worker that dies at any byte leaves no half: the next one answers what is left, in its own order', () => {
    for (let cut = 0; cut <= all.length; cut++) {
      const relay = ask();
      relay.replies.receive(Buffer.concat(fromWorker).subarray(0, cut));
      relay.replies.reset();
      const answered = fromWorker.filter((___, i) => (boundaries[i + 1] ?? all.length) <= cut).length;
      expect(relay.unanswered.count).toBe(3 - answered);
      const left = [...fromWorker.keys()].slice(answered).reverse();
      relay.replies.receive(Buffer.concat(left.map((i) => fromWorker[i]!)));
      const expected = [...toClient.slice(0, answered), ...left.map((i) => toClient[i]!)];
      expect(relay.received().equals(Buffer.concat(expected))).toBe(true);
    }
  });
});

describe('replies', () => {
  test('chunks of several replies, interleaved, leave each reply in one piece', () => {
    const relay = open();
    for (const id of [10n, 11n])
      relay.requests.receive(encodeRequest({ type: NBD_CMD_READ, cookie: id, length: 9 }, false));
    const part = (id: bigint, done: boolean) => chunk(id, { done, data: bytesOf(done ? 4 : 6) });
    relay.replies.receive(Buffer.concat([part(0n, false), part(1n, false), part(1n, true), part(0n, true)]));
    const expected = [part(11n, false), part(11n, true), part(10n, false), part(10n, true)];
    expect(relay.received()).toEqual(Buffer.concat(expected));
  });

  test.each([
    ['for no request', simpleReply(3n)],
    ['with a cookie beyond ours', simpleReply(1n << 32n)],
    ['with a wrong magic number', Buffer.alloc(64)],
  ])('one %s ends the connection', (_, bytes) => {
    const relay = open();
    relay.requests.receive(encodeRequest({ type: NBD_CMD_FLUSH, cookie: 1n }, false));
    relay.replies.receive(bytes);
    expect(relay.breaches).toHaveLength(1);
    expect(relay.received().length).toBe(0);
  });
});
