/** Seeded random trees with everything a backup can hold, and the extremes more often than life has them. */
import { directory, file, symlink, type TreeNode } from './ext4-tree.ts';

/** Numbers from a seed (mulberry32): the same on every machine. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** 0 <= x < 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from least to most, both included. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.integer(0, values.length - 1)]!;
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.integer(0, 255));
  }
}

const YEAR_2446 = 2 ** 34 - 2 ** 31 - 1;
const YEAR_1901 = -(2 ** 31);

/** A directory with everything below it. `hugeFiles` makes sizes up to a terabyte, for images without file content. */
export function randomRoot(random: Random, { hugeFiles = false }: { hugeFiles?: boolean } = {}): TreeNode {
  const links = random.chance(0.5) ? random.integer(1, 5) : 0;
  const linkNodes = Array.from({ length: links }, (_, i) => ({ ...randomLeaf(random, hugeFiles), link: `link ${i}` }));
  const budget = { entries: random.pick([20, 100, 300, 800]) };
  const children = randomChildren(random, { depth: 0, hugeFiles, linkNodes, budget });
  if (random.chance(0.3)) children.push(['lost+found', directory([], { mode: 0o700 })]);
  if (random.chance(0.2)) children.push(['deep', chain(random, random.integer(10, 60))]);
  return directory(children, common(random));
}

interface Place {
  readonly depth: number;
  readonly hugeFiles: boolean;
  readonly linkNodes: readonly TreeNode[];
  /** What the whole tree may still hold. */
  readonly budget: { entries: number };
}

function randomChildren(random: Random, place: Place): [Uint8Array | string, TreeNode][] {
  const most = random.pick(place.depth === 0 ? [0, 3, 10, 40, 400] : [0, 0, 1, 3, 10, 30, 120]);
  const names = new Map<string, Uint8Array>();
  const nameBytesMost = random.pick([3, 12, 12, 30, 255]);
  for (let i = Math.min(place.budget.entries, random.integer(0, most)); i > 0; i--) {
    place.budget.entries--;
    const name = randomName(random, nameBytesMost);
    names.set(Buffer.from(name).toString('latin1'), name);
  }
  names.delete('.');
  names.delete('..');
  names.delete('lost+found');
  names.delete('deep');
  return [...names.values()].map((name) => [name, randomNode(random, place)]);
}

function randomNode(random: Random, place: Place): TreeNode {
  if (place.linkNodes.length > 0 && random.chance(0.15)) return random.pick(place.linkNodes);
  if (place.depth < 6 && random.chance(0.15)) {
    return directory(randomChildren(random, { ...place, depth: place.depth + 1 }), {
      ...common(random),
      ...attributes(random, ['system.posix_acl_default']),
    });
  }
  return randomLeaf(random, place.hugeFiles);
}

function randomLeaf(random: Random, hugeFiles: boolean): TreeNode {
  const more = { ...common(random), ...attributes(random, []) };
  const kind = random.next();
  if (kind < 0.75) return file(randomSize(random, hugeFiles), more);
  if (kind < 0.9) {
    const length = random.pick([1, 5, 58, 59, 60, 61, 300, 4095, random.integer(1, 4095)]);
    const target = random.bytes(length).map((byte) => byte || 1);
    return symlink(target, more);
  }
  return { type: random.pick(['fifo', 'socket', 'characterDevice', 'blockDevice'] as const), ...more };
}

function randomSize(random: Random, hugeFiles: boolean): number {
  const small = [0, 0, 1, 4095, 4096, 4097, random.integer(1, 30_000), random.integer(1, 40) * 4096];
  if (!hugeFiles) return random.pick(small);
  const huge = [2 ** 27, 2 ** 27 + 1, 2 ** 28, 2 ** 30, random.integer(1, 2 ** 34), random.integer(1, 2 ** 36)];
  return random.pick(random.chance(0.1) ? huge : small);
}

function randomName(random: Random, most: number): Uint8Array {
  const length = random.chance(0.1) ? most : random.integer(1, most);
  const anyByte = random.chance(0.2);
  return Uint8Array.from({ length }, () => {
    const byte = anyByte ? random.integer(1, 255) : random.integer(97, 122);
    return byte === 47 ? 95 : byte;
  });
}

function common(random: Random): Partial<TreeNode> {
  const id = () => random.pick([0, 1, 999, 65_535, 65_536, 2 ** 31, 2 ** 32 - 2, random.integer(0, 70_000)]);
  const seconds = random.pick([
    ...[0, -1, 2 ** 31 - 1, 2 ** 31, 2 ** 32, YEAR_1901, YEAR_2446],
    random.integer(0, 2 ** 31),
    random.integer(YEAR_1901, YEAR_2446),
  ]);
  return {
    mode: random.integer(0, 0o7777),
    uid: id(),
    gid: id(),
    mtime: [seconds, random.pick([0, 1, 999_999_999, random.integer(0, 999_999_999)])],
  };
}

function attributes(random: Random, extra: readonly string[]): Partial<TreeNode> {
  if (random.chance(0.8)) return {};
  const values = new Map<string, readonly [string, Uint8Array]>();
  for (let i = random.integer(1, 8); i > 0; i--) {
    const prefix = random.pick(['user.', 'user.', 'trusted.', 'security.']);
    const rest = Buffer.from(Array.from({ length: random.integer(1, 30) }, () => random.integer(97, 122)));
    const length = random.pick([0, 1, 3, 4, 20, 40, 100, 1000, random.integer(0, 4000), 20_000, 65_536]);
    const name = `${prefix}${rest.toString()}`;
    values.set(name, [name, random.bytes(random.chance(0.9) ? Math.min(length, 200) : length)]);
  }
  if (random.chance(0.4)) values.set('access', ['system.posix_acl_access', randomAcl(random)]);
  for (const name of extra) if (random.chance(0.4)) values.set(name, [name, randomAcl(random)]);
  return { attributes: [...values.values()] };
}

/** An access control list in the form getxattr(2) gives, valid: ordered, and with a mask as it names users. */
export function randomAcl(random: Random): Uint8Array {
  const none = 2 ** 32 - 1;
  const users = Array.from({ length: random.integer(1, 3) }, (_, i): [number, number] => [2, 1000 + i]);
  const groups = Array.from({ length: random.integer(0, 2) }, (_, i): [number, number] => [8, 70_000 + i]);
  const entries: [number, number][] = [[1, none], ...users, [4, none], ...groups, [16, none], [32, none]];
  const acl = Buffer.alloc(4 + entries.length * 8);
  acl.writeUInt32LE(2, 0);
  entries.forEach(([tag, id], i) => {
    acl.writeUInt16LE(tag, 4 + i * 8);
    acl.writeUInt16LE(random.integer(0, 7), 6 + i * 8);
    acl.writeUInt32LE(id, 8 + i * 8);
  });
  return acl;
}

function chain(random: Random, depth: number): TreeNode {
  let node: TreeNode = file(random.integer(0, 5000));
  for (let i = 0; i < depth; i++) node = directory([[`level ${i}`, node]], { mode: 0o755 });
  return node;
}
