/**
 * POSIX access control lists, from the form getxattr(2) gives to the one ext4 stores: another version number, and no id
 * in entries whose tag needs none.
 */
import { ACL_SHORT_ENTRY_BYTES, aclEntry, aclHeader, aclTags, aclVersions } from './format.ts';

const knownTags: ReadonlySet<number> = new Set(Object.values(aclTags));

/** The stored form; undefined if `value` is no access control list. */
export function storedAcl(value: Uint8Array): Uint8Array | undefined {
  const entries = (value.length - aclHeader.sizeBytes) / aclEntry.sizeBytes;
  if (!Number.isInteger(entries) || entries < 1) return undefined;
  if (aclHeader.read(value).a_version !== aclVersions.getxattr) return undefined;
  const stored = new Uint8Array(value.length);
  aclHeader.write(stored, { a_version: aclVersions.stored });
  let at = aclHeader.sizeBytes;
  for (let i = 0; i < entries; i++) {
    const from = aclHeader.sizeBytes + i * aclEntry.sizeBytes;
    const tag = aclEntry.read(value, from).e_tag;
    if (!knownTags.has(tag)) return undefined;
    const length = tag === aclTags.user || tag === aclTags.group ? aclEntry.sizeBytes : ACL_SHORT_ENTRY_BYTES;
    stored.set(value.subarray(from, from + length), at);
    at += length;
  }
  return stored.subarray(0, at);
}
