/** Plays fixtures/nbd against the pure handshake; its README tells the format. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  begin,
  type Decision,
  decide,
  type ExportFacts,
  greeting,
  type HaggleState,
  type Next,
} from '../../../src/nbd/handshake.ts';
import { Inbox } from '../../../src/nbd/inbox.ts';
import { metaContexts } from '../../../src/nbd/meta-context.ts';
import { IHAVEOPT, nbdClientFlags, nbdOption, optionReplies } from '../../../src/nbd/protocol.ts';

const folder = new URL('../../../fixtures/nbd/', import.meta.url);

const disk: ExportFacts = {
  name: 'disk',
  description: 'a disk',
  sizeBytes: 2 ** 20,
  readOnly: false,
  supports: { fua: true, trim: true, multiConn: true, fastZero: true, cache: true },
  contexts: metaContexts,
  blockSize: { minimum: 1, maximumPayload: 2 ** 25 },
};

interface Transcript {
  readonly client: Buffer;
  readonly server: Buffer;
  readonly end: string;
}

function parse(text: string): Transcript {
  const sides = { C: [] as Buffer[], S: [] as Buffer[] };
  let end = '';
  for (const raw of text.split('\n')) {
    const line = raw.replace(/(^|\s+)#.*$/, '').trim();
    const [, side, hex] = /^([CS]): (.*)$/.exec(line) ?? [];
    if (side === 'C' || side === 'S') sides[side].push(bytesOf(hex!));
    else if (line.startsWith('=> ')) end = line.slice(3);
    else expect(line).toBe('');
  }
  return { client: Buffer.concat(sides.C), server: Buffer.concat(sides.S), end };
}

/** `"text"` and hexadecimal, separated by blanks. */
function bytesOf(line: string): Buffer {
  const parts = line.match(/"[^"]*"|[0-9a-f]+/g) ?? [];
  return Buffer.concat(
    parts.map((part) => (part.startsWith('"') ? Buffer.from(part.slice(1, -1)) : Buffer.from(part, 'hex'))),
  );
}

function answer(decision: Decision) {
  if (!('ask' in decision)) return decision;
  if (decision.ask === 'list') return decision.answer([{ name: 'disk', description: 'a disk' }]);
  const unknown = { reply: optionReplies.NBD_REP_ERR_UNKNOWN, message: 'no such export' };
  return decision.answer(decision.name === 'disk' ? disk : unknown);
}

function describeNext(next: Next): string {
  if (next.to !== 'transmission') return next.to;
  const { style, transmissionFlags, contexts } = next.session;
  const flags = transmissionFlags.toString(16).padStart(4, '0');
  return ['transmission', style, flags, ...contexts.map(({ id, context }) => `${id}=${context.name}`)].join(' ');
}

function play(client: Buffer): { server: Buffer; end: string } {
  const inbox = new Inbox();
  inbox.push(client);
  const said: Uint8Array[] = [greeting()];
  expect(inbox.take(4)).toBe(true);
  let state: HaggleState | undefined = begin(nbdClientFlags.read(inbox.view(4)).flags, 'off');
  let end = state === undefined ? 'close' : 'options';
  while (state !== undefined && inbox.take(nbdOption.sizeBytes)) {
    const { magic, option, length } = nbdOption.read(inbox.view(nbdOption.sizeBytes));
    expect(magic).toBe(IHAVEOPT);
    const data = length > 0 && inbox.take(length) ? inbox.view(length) : Buffer.alloc(0);
    expect(data.length).toBe(length);
    const { replies, next } = answer(decide(state, { option, data }));
    said.push(...replies);
    end = describeNext(next);
    state = next.to === 'options' ? next.state : undefined;
  }
  expect(inbox.pendingBytes).toBe(0);
  return { server: Buffer.concat(said), end };
}

describe('transcripts', () => {
  const names = readdirSync(folder).filter((name) => name.endsWith('.txt'));

  test('are there', () => {
    expect(names.length).toBeGreaterThan(4);
  });

  test.each(names)('%s', (name) => {
    const { client, server, end } = parse(readFileSync(new URL(name, folder), 'utf8'));
    const played = play(client);
    expect(played.server.toString('latin1')).toBe(server.toString('latin1'));
    expect(played.end).toBe(end);
  });

  test('a flipped byte is seen', () => {
    const { client, server } = parse(readFileSync(new URL('go.txt', folder), 'utf8'));
    client[client.length - 1]! ^= 1; // Asks for another information.
    expect(play(client).server).not.toEqual(server);
  });
});
