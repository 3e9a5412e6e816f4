import { describe, expect, it } from 'vitest';
import { exitCodes, UserError } from '../../../src/core/errors.ts';
import { formatTime, parseSelector, selectSnapshot } from '../../../src/kloset/selector.ts';
import type { SnapshotHeader } from '../../../src/kloset/snapshot.ts';
import { resolveRoot } from '../../../src/source/kloset-source.ts';

function header(id: string, seconds: number, tags: string[] = []): SnapshotHeader {
  const none = new Uint8Array(32);
  return {
    id: id.padEnd(64, '0'),
    timestamp: { seconds, nanoseconds: 0 },
    tags,
    name: '',
    importer: { type: 'fs', origin: '', directory: Buffer.from('/srv/\xff', 'latin1') },
    trees: { files: none, attributes: none, errors: none },
    dirpackIndex: undefined,
    totalBytes: 0,
    entryCount: 1,
  };
}
const headers = [header('abcdef03', 3, ['nightly']), header('abcd0002', 2, ['nightly', 'x']), header('12', 1, ['x'])];
const selected = (text: string, among = headers) => selectSnapshot(among, parseSelector(text)).id.replace(/0+$/, '');

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    expect((error as UserError).exitCode).toBe(exitCodes.usage);
    return (error as UserError).message;
  }
  throw new Error('it was not refused');
}

describe('a selector', () => {
  it.each([
    ['latest', 'abcdef03'],
    ['tag:nightly', 'abcdef03'],
    ['tag:x', 'abcd0002'],
    ['abcd0', 'abcd0002'],
    ['ABCDEF', 'abcdef03'],
    ['1', '12'],
    ['latest:/data', 'abcdef03'],
  ])('%s means %s', (text, id) => expect(selected(text)).toBe(id));

  it('may be empty if there is one snapshot only', () => {
    expect(selected('', [headers[2]!])).toBe('12');
    expect(refusal(() => selected(''))).toMatch(/matches 3 snapshots/);
  });

  it('that means several names them all', () => {
    const message = refusal(() => selected('abcd'));
    expect(message).toContain('abcdef03 (1970-01-01T00:00:03Z)');
    expect(message).toContain('abcd0002 (1970-01-01T00:00:02Z)');
    expect(message).not.toContain('120');
  });

  it.each([
    ['ffff', /No snapshot of the store matches "ffff"/],
    ['tag:none', /matches the tag "none"/],
    ['tag:', /names no tag/],
    ['yesterday', /"yesterday" is not a snapshot/],
    ['a'.repeat(65), /is not a snapshot/],
  ])('%s is refused', (text, message) => expect(refusal(() => selected(text))).toMatch(message));

  it('says so if the store is empty', () =>
    expect(refusal(() => selected('latest', []))).toMatch(/holds no snapshots/));

  it.each([
    ['latest', undefined, '/'],
    ['latest:', '', '/srv/\xff'],
    ['tag:x:a/b:c', 'a/b:c', '/srv/\xff/a/b:c'],
    ['12:/', '/', '/'],
    ['12:/a//b/./c/../d/', '/a//b/./c/../d/', '/a/b/d'],
    ['12:../..', '../..', '/'],
    ['12:../../../etc', '../../../etc', '/etc'],
    ['12:é', 'é', `/srv/\xff/${Buffer.from('é').toString('latin1')}`],
  ])('%s has the path %s, which is %s', (text, path, root) => {
    const selector = parseSelector(text);
    expect(selector.path).toBe(path);
    expect(resolveRoot(headers[0]!, selector.path)).toBe(root);
  });
});

it('a time that no Date can hold is still one line', () => {
  expect(formatTime(header('1', 1_795_359_600))).toBe('2026-11-22T15:00:00Z');
  for (const seconds of [2 ** 62, -(2 ** 62), 8.64e12 + 1])
    expect(formatTime(header('1', seconds))).toBe(`second ${seconds}`);
});
