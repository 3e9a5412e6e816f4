/**
 * What a device holds, as two digests: the SHA-256 of all its bytes, which any tool can compute from a copy
 * (`nbdcopy URI - | sha256sum`), and the root of a hash tree, which costs nothing for free space.
 *
 * The tree is the Merkle Tree Hash of RFC 6962, section 2.1, with SHA-256 over the device cut into leaves of 1 MiB (the
 * last may be shorter): a leaf is SHA-256(0x00 || bytes), a node SHA-256(0x01 || left || right), and n leaves divide
 * into the largest power of two below n on the left and the rest on the right.
 */
import { createHash, webcrypto } from 'node:crypto';
import { mapAhead } from '../core/concurrency.ts';
import type { ReadableDevice } from '../core/device.ts';
import { toHex } from '../core/mac.ts';
import { type ByteRange, MiB } from '../core/units.ts';

/** Bytes of the device under one leaf. */
export const LEAF_BYTES = 1 * MiB;

/** Leaves being read and hashed at once: enough that decoding threads, hashing threads and the store's disk all have work. */
const LEAVES_IN_FLIGHT_MAX = 16;

/** Leaves of zeroes taken in one step: the plain SHA-256 has to see them all, and progress is told between steps. */
const ZERO_LEAVES_PER_STEP = 64;

const LEAF_PREFIX = 0x00;
const NODE_PREFIX = Uint8Array.of(0x01);

/** A device that knows where it is empty. */
export interface DigestibleDevice extends ReadableDevice {
  /** Cuts a range into data and zeroes known as such, in order and without gaps. */
  extents(range: ByteRange): Iterable<ByteRange & { readonly zero: boolean }>;
}

export interface DeviceDigest {
  readonly sizeBytes: number;
  /** SHA-256 of all bytes, hex; undefined if only the tree was asked for. */
  readonly sha256: string | undefined;
  /** Root of the hash tree, hex. */
  readonly treeRoot: string;
}

export interface DigestOptions {
  /** Leaves the SHA-256 of all bytes out: it takes about a second a GiB, free space included. */
  readonly treeOnly?: boolean;
  /** Told after every step how many bytes it had. */
  readonly onProgress?: (bytes: number) => void;
}

/** Reads and hashes the whole device. Rejects as its reads do, once none of them is under way. */
export async function digestDevice(device: DigestibleDevice, options: DigestOptions = {}): Promise<DeviceDigest> {
  const { treeOnly = false, onProgress } = options;
  const flat = treeOnly ? undefined : createHash('sha256');
  const tree = new HashTree();
  const zeroes = new Uint8Array(LEAF_BYTES);
  for await (const { step, leaf } of mapAhead(stepsOf(device), LEAVES_IN_FLIGHT_MAX, (step) =>
    readStep(device, step),
  )) {
    if (leaf === undefined) {
      tree.appendZeroes(step.length / LEAF_BYTES);
      for (let done = 0; done < step.length && flat !== undefined; done += LEAF_BYTES) flat.update(zeroes);
    } else {
      tree.append(leaf.hash);
      flat?.update(leaf.bytes);
    }
    onProgress?.(step.length);
  }
  return { sizeBytes: device.sizeBytes, sha256: flat?.digest('hex'), treeRoot: toHex(tree.root()) };
}

/** One leaf to be read, or some whole ones that are known to be zero. */
interface Step extends ByteRange {
  readonly zero: boolean;
}

/** The device from its beginning to its end in steps; zeroes that do not fill a leaf are read with the rest of it. */
function* stepsOf(device: DigestibleDevice): Generator<Step> {
  const { sizeBytes } = device;
  let at = 0;
  for (const { offset, length } of zeroRuns(device)) {
    const from = Math.ceil(offset / LEAF_BYTES) * LEAF_BYTES;
    const to = Math.floor((offset + length) / LEAF_BYTES) * LEAF_BYTES;
    if (to <= from) continue;
    for (; at < from; at += LEAF_BYTES) yield { offset: at, length: LEAF_BYTES, zero: false };
    while (at < to) {
      const step = { offset: at, length: Math.min(to - at, ZERO_LEAVES_PER_STEP * LEAF_BYTES), zero: true };
      yield step;
      at += step.length;
    }
  }
  for (; at < sizeBytes; at += LEAF_BYTES)
    yield { offset: at, length: Math.min(LEAF_BYTES, sizeBytes - at), zero: false };
}

/** Zeroes as they lie, runs that touch made one. */
function* zeroRuns(device: DigestibleDevice): Generator<ByteRange> {
  let run: ByteRange | undefined;
  for (const { offset, length, zero } of device.extents({ offset: 0, length: device.sizeBytes })) {
    if (zero) run = { offset: run?.offset ?? offset, length: (run?.length ?? 0) + length };
    if (zero || run === undefined) continue;
    yield run;
    run = undefined;
  }
  if (run !== undefined) yield run;
}

interface ReadStep {
  readonly step: Step;
  /** Undefined for zeroes. */
  readonly leaf: { readonly bytes: Uint8Array; readonly hash: Uint8Array } | undefined;
}

async function readStep(device: DigestibleDevice, step: Step): Promise<ReadStep> {
  if (step.zero) return { step, leaf: undefined };
  const prefixed = new Uint8Array(1 + step.length);
  prefixed[0] = LEAF_PREFIX;
  const bytes = prefixed.subarray(1);
  await device.read(step.offset, bytes);
  // Not createHash: this one runs in a thread of its own.
  const hash = new Uint8Array(await webcrypto.subtle.digest('SHA-256', prefixed));
  return { step, leaf: { bytes, hash } };
}

/** The Merkle Tree Hash of a growing list of leaves; keeps one hash a level. */
export class HashTree {
  /** Element k: the hash over 2^k leaves that wait for as many to their right. */
  readonly #waiting: (Uint8Array | undefined)[] = [];
  /** Element k: the hash over 2^k leaves of zeroes. */
  readonly #zeroes: Uint8Array[] = [];
  #leaves = 0;

  /** The hash of a leaf: see the head of this file. */
  static leafHash(bytes: Uint8Array): Uint8Array {
    return createHash('sha256').update(Uint8Array.of(LEAF_PREFIX)).update(bytes).digest();
  }

  append(leafHash: Uint8Array): void {
    this.#add(leafHash, 0);
  }

  /** Appends `count` leaves of LEAF_BYTES zeroes, in steps of the largest subtrees that fit. */
  appendZeroes(count: number): void {
    for (let left = count; left > 0; ) {
      let level = 0;
      while (2 ** (level + 1) <= left && this.#leaves % 2 ** (level + 1) === 0) level++;
      this.#add(this.#zeroHash(level), level);
      left -= 2 ** level;
    }
  }

  /** The root; without leaves the SHA-256 of nothing, as the RFC has it. */
  root(): Uint8Array {
    let root: Uint8Array | undefined;
    for (const waiting of this.#waiting) {
      if (waiting !== undefined) root = root === undefined ? waiting : nodeHash(waiting, root);
    }
    return root ?? createHash('sha256').digest();
  }

  /** Adds a subtree of 2^level leaves; the leaves before it are a multiple of that. */
  #add(hash: Uint8Array, level: number): void {
    this.#leaves += 2 ** level;
    let sum = hash;
    let at = level;
    for (let left = this.#waiting[at]; left !== undefined; left = this.#waiting[at]) {
      sum = nodeHash(left, sum);
      this.#waiting[at++] = undefined;
    }
    this.#waiting[at] = sum;
  }

  #zeroHash(level: number): Uint8Array {
    while (this.#zeroes.length <= level) {
      const below = this.#zeroes.at(-1);
      this.#zeroes.push(below === undefined ? HashTree.leafHash(new Uint8Array(LEAF_BYTES)) : nodeHash(below, below));
    }
    return this.#zeroes[level]!;
  }
}

function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return createHash('sha256').update(NODE_PREFIX).update(left).update(right).digest();
}
