import { statfs } from 'node:fs/promises';

/** Types of file systems that are another machine's or another program's. */
const fileSystemsElsewhere: ReadonlySet<number> = new Set([
  0x6969, // NFS
  0xff534d42, // CIFS
  0xfe534d42, // SMB 2
  0x65735546, // FUSE
  0x01021997, // 9P
  0x00c36400, // Ceph
  0x0bd00bd0, // Lustre
  0x5346414f, // AFS
]);

/** Whether the file system at `path` is of one of these types: f_type of statfs(2), as linux/magic.h has them. */
export async function hasFileSystemType(path: string, types: ReadonlySet<number>): Promise<boolean> {
  const { type } = await statfs(path);
  // Some systems hand the type out as a signed number.
  return types.has(type >>> 0);
}

/** Whether what lies there is another machine's or another program's, which can keep one waiting for ever. */
export function liesElsewhere(path: string): Promise<boolean> {
  return hasFileSystemType(path, fileSystemsElsewhere);
}
