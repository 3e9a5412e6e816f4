import { describe, expect, test } from 'vitest';
import { storedAcl } from '../../../src/ext4/acl.ts';
import { hashEntry, planAttributes } from '../../../src/ext4/attributes.ts';

const ALL = 0o7777;
const attribute = (name: string, length: number) => ({ name: Buffer.from(name), value: new Uint8Array(length) });

function plan(attributes: ReturnType<typeof attribute>[]) {
  const left: string[] = [];
  const { body, block, outside } = planAttributes(attributes, ALL, (kind) => left.push(kind));
  const names = (stored: typeof body) => stored.map(({ name }) => Buffer.from(name).toString());
  return { body: names(body), block: names(block), outside: names(outside), left };
}

describe('access control lists', () => {
  // `setfacl -m u:1000:rw- FILE` on ext4 made by mke2fs 1.47: as getfattr shows it, and as `debugfs -R "inode_dump FILE"` does.
  const read = '0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff';
  const stored = '010000000100060002000600e8030000040004001000060020000400';

  test('lose the ids that mean nothing', () => {
    expect(Buffer.from(storedAcl(Buffer.from(read, 'hex'), ALL)!).toString('hex')).toBe(stored);
  });

  test('keep the bits that a mode mask leaves: of the owner, the mask, the others', () => {
    const masked = (mode: number) => Buffer.from(storedAcl(Buffer.from(read, 'hex'), mode)!).toString('hex');
    expect(masked(0o7740)).toBe('010000000100060002000600e8030000040004001000040020000000');
    expect(masked(0o500)).toBe('010000000100040002000600e8030000040004001000000020000000');
    expect(masked(0o777)).toBe(stored);
  });

  test('without a mask entry bound the group by its own', () => {
    const plain = '0200000001000700ffffffff04000600ffffffff20000700ffffffff';
    const masked = Buffer.from(storedAcl(Buffer.from(plain, 'hex'), 0o743)!).toString('hex');
    expect(masked).toBe('01000000010007000400040020000300');
  });

  test('of another version, length or tag are refused', () => {
    expect(storedAcl(Buffer.from(`03${read.slice(2)}`, 'hex'), ALL)).toBeUndefined();
    expect(storedAcl(Buffer.from(read.slice(2), 'hex'), ALL)).toBeUndefined();
    expect(storedAcl(Buffer.from(read.slice(0, 8), 'hex'), ALL)).toBeUndefined();
    expect(storedAcl(Buffer.from(read.replace('0100', '0300'), 'hex'), ALL)).toBeUndefined();
    expect(storedAcl(new Uint8Array(0), ALL)).toBeUndefined();
  });
});

describe('places', () => {
  test('the inode takes 88 bytes of entries and values', () => {
    // 16 for the entry, 4 for the name.
    expect(plan([attribute('user.abcd', 68)])).toMatchObject({ body: ['abcd'], block: [] });
    expect(plan([attribute('user.abcd', 69)])).toMatchObject({ body: [], block: ['abcd'] });
  });

  test('what the inode cannot take goes to the block, in its order', () => {
    const attributes = [attribute('user.ccc', 80), attribute('user.b', 80), attribute('trusted.a', 80)];
    expect(plan(attributes)).toMatchObject({ body: [], block: ['b', 'ccc', 'a'], outside: [] });
  });

  test('the largest values leave a full block', () => {
    const attributes = [attribute('user.a', 2000), attribute('user.b', 3000), attribute('user.c', 1000)];
    expect(plan(attributes)).toEqual({ body: [], block: ['a', 'b', 'c'], outside: ['b'], left: [] });
  });

  test('the block takes 4060 bytes', () => {
    expect(plan([attribute('user.a', 4040)])).toMatchObject({ block: ['a'], outside: [] });
    expect(plan([attribute('user.a', 4041)])).toMatchObject({ block: ['a'], outside: ['a'] });
  });

  test('names that exceed a block are left out, and said', () => {
    const attributes = Array.from({ length: 20 }, (_, i) => attribute(`user.${'n'.repeat(240)}${i + 10}`, 0));
    const { body, block, left } = plan(attributes);
    expect(body).toHaveLength(0);
    expect(block).toHaveLength(15);
    expect(left).toEqual(Array(5).fill('attribute-names-too-many'));
  });
});

test.each([
  ['system.nfs4_acl', 5, 'attribute-namespace-unknown'],
  ['system.posix_acl_access', 5, 'acl-invalid'],
  ['user.', 5, 'attribute-name-invalid'],
  ['user.a\0b', 5, 'attribute-name-invalid'],
  [`user.${'n'.repeat(251)}`, 5, 'attribute-name-invalid'],
  ['user.a', 65_537, 'attribute-value-too-long'],
])('%s with %i bytes is left out: %s', (name, length, kind) => {
  expect(plan([attribute(name, length)])).toEqual({ body: [], block: [], outside: [], left: [kind] });
});

test('a second attribute of one name is left out', () => {
  expect(plan([attribute('user.a', 1), attribute('user.a', 2)])).toMatchObject({
    body: ['a'],
    left: ['attribute-name-invalid'],
  });
});

test('the hash of an entry', () => {
  expect(hashEntry(Buffer.from('a'), [])).toBe(0x61);
  expect(hashEntry(Buffer.from('ab'), [])).toBe((0x61 << 5) ^ 0x62);
  expect(hashEntry(Buffer.from([0xff]), [])).toBe(0xffffffff);
  expect(hashEntry(Buffer.from('a'), [0x01020304])).toBe(((0x61 << 16) ^ 0x01020304) >>> 0);
});
