/**
 * POSIX access control lists, from the form getxattr(2) gives to the one ext4 stores: another version number, and no id
 * in entries whose tag needs none.
 */
import { ACL_SHORT_ENTRY_BYTES, aclEntry, aclHeader, aclTags, aclVersions } from './format.ts';

/** Where an entry, stored or not, has its permissions: rwx in the low byte. */
const PERMISSIONS = aclEntry.offsetOf('e_perm');
const ALL_BITS = 0xff;

const knownTags: ReadonlySet<number> = new Set(Object.values(aclTags));

/**
 * The stored form; undefined if `value` is no access control list. Only permission bits of `modeMask` stay, in the three
 * entries that stand for the mode's bits: the owner's, the others', and for the group the mask, which bounds all named
 * users and groups, or without one the group's own.
 */
export function storedAcl(value: Uint8Array, modeMask: number): Uint8Array | undefined {
  const entries = (value.length - aclHeader.sizeBytes) / aclEntry.sizeBytes;
  if (!Number.isInteger(entries) || entries < 1) return undefined;
  if (aclHeader.read(value).a_version !== aclVersions.getxattr) return undefined;
  const stored = new Uint8Array(value.length);
  aclHeader.write(stored, { a_version: aclVersions.stored });
  const tags = Array.from({ length: entries }, (_, i) => aclEntry.read(value, startOf(i)).e_tag);
  const kept = keptBits(modeMask, tags.includes(aclTags.mask));
  let at = aclHeader.sizeBytes;
  for (const [i, tag] of tags.entries()) {
    const from = startOf(i);
    if (!knownTags.has(tag)) return undefined;
    const length = tag === aclTags.user || tag === aclTags.group ? aclEntry.sizeBytes : ACL_SHORT_ENTRY_BYTES;
    stored.set(value.subarray(from, from + length), at);
    stored[at + PERMISSIONS]! &= kept.get(tag) ?? ALL_BITS;
    at += length;
  }
  return stored.subarray(0, at);
}

function startOf(entry: number): number {
  return aclHeader.sizeBytes + entry * aclEntry.sizeBytes;
}

/** By tag, which of an entry's permissions stay. */
function keptBits(modeMask: number, hasMask: boolean): ReadonlyMap<number, number> {
  if ((modeMask & 0o777) === 0o777) return new Map();
  const without = (bits: number) => ALL_BITS & ~(~bits & 7);
  return new Map([
    [aclTags.userObject, without(modeMask >> 6)],
    [hasMask ? aclTags.mask : aclTags.groupObject, without(modeMask >> 3)],
    [aclTags.other, without(modeMask)],
  ]);
}
