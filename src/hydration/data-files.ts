import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../device/file-system.ts';

export const DATA_FOLDER = 'data';

/** A data file's path: its number in eight decimal digits. */
export function dataPath(directory: string, file: number): string {
  return join(directory, DATA_FOLDER, String(file).padStart(8, '0'));
}

/** Sizes by number, bytes; empty without the folder. */
export async function dataFileSizes(directory: string): Promise<Map<number, number>> {
  const sizes = new Map<number, number>();
  for (const name of await namesIn(join(directory, DATA_FOLDER))) {
    if (!/^\d{8}$/.test(name)) continue;
    const { size } = await stat(join(directory, DATA_FOLDER, name));
    sizes.set(Number(name), size);
  }
  return sizes;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}
