/**
 * An independent reader of ext4, written from the kernel's documentation and sharing no line with the layout: superblock,
 * group descriptors, inodes, extents, directories (every block, by its records), attributes. Small, trusting, slow.
 */
export interface Readable {
  read(offset: number, target: Uint8Array): Promise<void>;
}

export interface Found {
  readonly inode: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly links: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly target?: Buffer;
  /** Full names to values, access control lists in the form getxattr(2) gives. */
  readonly attributes: ReadonlyMap<string, Buffer>;
  readonly extents: readonly FoundExtent[];
}

interface FoundExtent {
  readonly logical: number;
  readonly length: number;
  readonly physical: number;
}

const BLOCK = 4096;

export class Ext4Reader {
  readonly #device: Readable;
  #inodesPerGroup = 0;
  readonly #tables = new Map<number, number>();

  constructor(device: Readable) {
    this.#device = device;
  }

  async open(): Promise<void> {
    const superblock = await this.#bytes(1024, 1024);
    if (superblock.readUInt16LE(0x38) !== 0xef53) throw new Error('no ext4');
    this.#inodesPerGroup = superblock.readUInt32LE(0x28);
  }

  /** Every entry below the root by path (latin1, so that any byte survives), the root as ''. */
  async walk(): Promise<Map<string, Found>> {
    const found = new Map<string, Found>([['', await this.inode(2)]]);
    const waiting: [string, number][] = [['', 2]];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [path, inode] = next;
      for (const [name, child] of await this.#list(inode)) {
        const at = path === '' ? name : `${path}/${name}`;
        if (found.has(at)) throw new Error(`${at} is listed twice`);
        const entry = await this.inode(child);
        found.set(at, entry);
        if (entry.mode >> 12 === 4) waiting.push([at, child]);
      }
    }
    return found;
  }

  async inode(number: number): Promise<Found> {
    const raw = await this.#raw(number);
    const mode = raw.readUInt16LE(0);
    const size = raw.readUInt32LE(0x4) + raw.readUInt32LE(0x6c) * 2 ** 32;
    const extra = raw.readUInt32LE(0x88);
    const extents = raw.readUInt32LE(0x20) & 0x80000 ? await this.#extents(raw.subarray(0x28, 0x28 + 60)) : [];
    const symlink = mode >> 12 === 10;
    return {
      inode: number,
      mode,
      uid: raw.readUInt16LE(0x2) + raw.readUInt16LE(0x78) * 65536,
      gid: raw.readUInt16LE(0x18) + raw.readUInt16LE(0x7a) * 65536,
      size,
      links: raw.readUInt16LE(0x1a),
      seconds: raw.readInt32LE(0x10) + (extra & 3) * 2 ** 32,
      nanoseconds: extra >>> 2,
      ...(symlink && {
        target:
          extents.length > 0 ? await this.content(extents, 0, size) : Buffer.from(raw.subarray(0x28, 0x28 + size)),
      }),
      attributes: await this.#attributes(raw),
      extents,
    };
  }

  /** Bytes of a file; what no extent covers is zero. */
  async content(extents: readonly FoundExtent[], offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    for (const extent of extents) {
      const from = Math.max(offset, extent.logical * BLOCK);
      const to = Math.min(offset + length, (extent.logical + extent.length) * BLOCK);
      if (from >= to) continue;
      const place = extent.physical * BLOCK + from - extent.logical * BLOCK;
      await this.#device.read(place, bytes.subarray(from - offset, to - offset));
    }
    return bytes;
  }

  async #bytes(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    await this.#device.read(offset, bytes);
    return bytes;
  }

  async #raw(number: number): Promise<Buffer> {
    const group = Math.floor((number - 1) / this.#inodesPerGroup);
    let table = this.#tables.get(group);
    if (table === undefined) {
      const descriptor = await this.#bytes(BLOCK + group * 64, 64);
      table = descriptor.readUInt32LE(0x8) + descriptor.readUInt32LE(0x28) * 2 ** 32;
      this.#tables.set(group, table);
    }
    return this.#bytes(table * BLOCK + ((number - 1) % this.#inodesPerGroup) * 256, 256);
  }

  async #extents(node: Buffer): Promise<FoundExtent[]> {
    if (node.readUInt16LE(0) !== 0xf30a) throw new Error('no extent header');
    const found: FoundExtent[] = [];
    for (let i = 0; i < node.readUInt16LE(2); i++) {
      const at = 12 + i * 12;
      if (node.readUInt16LE(6) > 0) {
        const child = node.readUInt32LE(at + 4) + node.readUInt16LE(at + 8) * 2 ** 32;
        const below = await this.#extents(await this.#bytes(child * BLOCK, BLOCK));
        if (below[0]?.logical !== node.readUInt32LE(at)) throw new Error('an index does not match its node');
        found.push(...below);
      } else {
        const physical = node.readUInt32LE(at + 8) + node.readUInt16LE(at + 6) * 2 ** 32;
        found.push({ logical: node.readUInt32LE(at), length: node.readUInt16LE(at + 4), physical });
      }
    }
    return found;
  }

  /** Records of all blocks: those of a hash tree's inner blocks look unused. */
  async #list(inode: number): Promise<[string, number][]> {
    const { extents, size } = await this.inode(inode);
    const names: [string, number][] = [];
    for (let block = 0; block < size / BLOCK; block++) {
      const bytes = await this.content(extents, block * BLOCK, BLOCK);
      for (let at = 0; at < BLOCK; at += bytes.readUInt16LE(at + 4)) {
        if (bytes.readUInt32LE(at) === 0) continue;
        const name = bytes.toString('latin1', at + 8, at + 8 + bytes[at + 6]!);
        if (name !== '.' && name !== '..') names.push([name, bytes.readUInt32LE(at)]);
      }
    }
    return names;
  }

  async #attributes(raw: Buffer): Promise<Map<string, Buffer>> {
    const found = new Map<string, Buffer>();
    if (raw.readUInt32LE(160) === 0xea020000) await this.#entries(raw.subarray(164), 0, found);
    const block = raw.readUInt32LE(0x68) + raw.readUInt16LE(0x76) * 2 ** 32;
    if (block > 0) await this.#entries(await this.#bytes(block * BLOCK, BLOCK), 32, found);
    return found;
  }

  async #entries(area: Buffer, start: number, found: Map<string, Buffer>): Promise<void> {
    const prefixes = ['', 'user.', 'system.posix_acl_access', 'system.posix_acl_default', 'trusted.', '', 'security.'];
    for (let at = start; at + 4 <= area.length && area.readUInt32LE(at) !== 0; ) {
      const nameLength = area[at]!;
      const index = area[at + 1]!;
      const size = area.readUInt32LE(at + 8);
      const valueInode = area.readUInt32LE(at + 4);
      const offset = area.readUInt16LE(at + 2);
      const value =
        valueInode > 0
          ? await this.content((await this.inode(valueInode)).extents, 0, size)
          : Buffer.from(area.subarray(offset, offset + size));
      const name = prefixes[index]! + area.toString('latin1', at + 16, at + 16 + nameLength);
      if (found.has(name)) throw new Error(`${name} is there twice`);
      found.set(name, index === 2 || index === 3 ? fullAcl(value) : value);
      at += 16 + ((nameLength + 3) & ~3);
    }
  }
}

/** A stored access control list in the form getxattr(2) gives. */
function fullAcl(stored: Buffer): Buffer {
  const entries: Buffer[] = [Buffer.from([2, 0, 0, 0])];
  for (let at = 4; at < stored.length; ) {
    const named = stored[at] === 2 || stored[at] === 8;
    const id = named ? stored.subarray(at + 4, at + 8) : Buffer.alloc(4, 255);
    entries.push(Buffer.concat([stored.subarray(at, at + 4), id]));
    at += named ? 8 : 4;
  }
  return Buffer.concat(entries);
}
