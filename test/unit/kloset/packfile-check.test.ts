/** In a store without compression and encryption nothing but the packfile's MAC covers a snapshot's header. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LocalStore } from '../../../src/kloset/local-store.ts';
import { PtarStore } from '../../../src/kloset/ptar-store.ts';
import { cleanupAfterEach, storePath, temporaryFolder } from '../../support/fixtures.ts';
import { openStore } from '../../support/kloset.ts';
import { addSnapshot, DIRECTORY } from '../../support/snapshot-writer.ts';
import { StoreWriter } from '../../support/store-writer.ts';

const cleanup = cleanupAfterEach();

/** Turns a bit of the last letter of `word`, wherever it stands once. */
function spoil(file: string, word: string): void {
  const content = readFileSync(file);
  const at = content.indexOf(word);
  expect(at).toBeGreaterThan(0);
  content[at + word.length - 1]! ^= 1;
  writeFileSync(file, content);
}

async function listingOf(store: LocalStore | PtarStore | StoreWriter) {
  const opened = await openStore(store);
  cleanup.add(() => opened.close());
  return opened;
}

describe('a changed letter of a header', () => {
  it.each([
    ['sha256-nocompress', 'store'],
    ['ptar-sha256-nocompress', 'archive.ptar'],
  ] as const)('is noticed in %s', async (name, kind) => {
    const copy = join(temporaryFolder(cleanup), kind);
    cpSync(storePath(name, kind), copy, { recursive: true });
    const open = () => listingOf(kind === 'store' ? new LocalStore(copy) : new PtarStore(copy));
    const sound = await open();
    expect([sound.snapshots.length, sound.damaged.length]).toEqual([1, 0]);
    const files = kind === 'store' ? readdirSync(join(copy, 'packfiles'), { recursive: true, encoding: 'utf8' }) : [];
    const packfiles = kind === 'store' ? files.filter((file) => /[0-9a-f]{64}$/.test(file)) : [];
    const holder = packfiles
      .map((file) => join(copy, 'packfiles', file))
      .find((file) => readFileSync(file).includes('importer'));
    spoil(holder ?? copy, 'MachineID');
    const { snapshots, damaged } = await open();
    expect([snapshots.length, damaged.length]).toEqual([0, 1]);
    expect(damaged[0]!.error.message).toMatch(
      /^Snapshot [0-9a-f]{8} cannot be opened: .*packfile [0-9a-f]{64} is damaged/,
    );
  });

  it('costs only the snapshots of its packfile', async () => {
    const store = new StoreWriter();
    addSnapshot(store, { id: 1, tags: ['one'], entries: [{ path: '/', mode: DIRECTORY }] });
    const blob = store.blob.bind(store);
    store.blob = (type, plain, options) => blob(type, plain, { ...options, packfile: 2 });
    addSnapshot(store, { id: 2, entries: [{ path: '/', mode: DIRECTORY }] });
    await store.finish();
    store.onRead = (_, _offset, target) => {
      const at = Buffer.from(target).indexOf('one');
      if (at >= 0) target[at] = 0x4f;
    };
    const { snapshots, damaged } = await listingOf(store);
    expect([snapshots.length, damaged.length]).toEqual([1, 1]);
  });
});

it('reads a packfile once, whatever it holds', async () => {
  const store = new StoreWriter();
  for (let id = 1; id <= 5; id++) addSnapshot(store, { id, entries: [{ path: '/', mode: DIRECTORY }] });
  await store.finish();
  const whole: number[] = [];
  store.onRead = (_, offset, target) => offset === 0 && whole.push(target.byteLength);
  expect((await listingOf(store)).snapshots.length).toBe(5);
  expect(whole.length).toBe(1);
});
