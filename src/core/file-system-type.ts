import { statfs } from 'node:fs/promises';

/** Whether the file system at `path` is of one of these types: f_type of statfs(2), as linux/magic.h has them. */
export async function hasFileSystemType(path: string, types: ReadonlySet<number>): Promise<boolean> {
  const { type } = await statfs(path);
  // Some systems hand the type out as a signed number.
  return types.has(type >>> 0);
}
