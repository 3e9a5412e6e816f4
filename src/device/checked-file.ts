/**
 * Small files that are there as a whole or not at all, and know when they are damaged: JSON
 * `{"checksum": …, "content": …}` with the CRC-32 of the content as JSON without spaces. Each is written under another
 * name and synced before it gets its own.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { errorCode, type OverlayFileSystem } from './file-system.ts';

/** How names of files end that are being written, or were when their writer died. */
export const UNFINISHED_SUFFIX = '.new';
/** Far above any real one; what is longer is something else. */
const FILE_BYTES_MAX = 1024 * 1024;

/** The content, `'damaged'`, or undefined if there is no such file. */
export async function readChecked(fileSystem: OverlayFileSystem, path: string): Promise<unknown> {
  const bytes = await readWhole(fileSystem, path);
  if (bytes === undefined) return undefined;
  try {
    const { checksum, content } = JSON.parse(bytes.toString()) as { checksum: unknown; content: unknown };
    return checksum === crc32(JSON.stringify(content)) ? content : 'damaged';
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return 'damaged';
    throw error;
  }
}

async function readWhole(fileSystem: OverlayFileSystem, path: string): Promise<Buffer | undefined> {
  let file: Awaited<ReturnType<OverlayFileSystem['open']>>;
  try {
    file = await fileSystem.open(path, 'read');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const bytes = Buffer.alloc(Math.min(FILE_BYTES_MAX, (await file.status()).sizeBytes));
    return bytes.subarray(0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}

/** Makes or replaces the file. One writer a file at a time. */
export async function writeChecked(
  fileSystem: OverlayFileSystem,
  directory: string,
  name: string,
  content: object,
): Promise<void> {
  await replaceFile(fileSystem, directory, name, encode(content));
}

/** Makes or replaces a file of any content, which is there as a whole, or as it was, after any crash. One writer a file at a time. */
export async function replaceFile(
  fileSystem: OverlayFileSystem,
  directory: string,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const temporary = join(directory, `${name}${UNFINISHED_SUFFIX}`);
  // What an interrupted attempt left is worth nothing.
  await fileSystem.remove(temporary).catch((error: unknown) => {
    if (errorCode(error) !== 'ENOENT') throw error;
  });
  await writeWhole(fileSystem, temporary, bytes);
  await fileSystem.rename(temporary, join(directory, name));
  await fileSystem.syncDirectory(directory);
}

/** Makes the file, unless there is one: then resolves to false. Any number of processes may try at once. */
export async function createChecked(
  fileSystem: OverlayFileSystem,
  directory: string,
  name: string,
  content: object,
): Promise<boolean> {
  const temporary = join(directory, `${name}.${randomBytes(8).toString('hex')}${UNFINISHED_SUFFIX}`);
  await writeWhole(fileSystem, temporary, encode(content));
  try {
    await fileSystem.link(temporary, join(directory, name));
    await fileSystem.syncDirectory(directory);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await fileSystem.remove(temporary);
  }
}

function encode(content: object): Uint8Array {
  const plain = JSON.stringify(content);
  return Buffer.from(`{"checksum":${crc32(plain)},"content":${plain}}\n`);
}

async function writeWhole(fileSystem: OverlayFileSystem, path: string, bytes: Uint8Array): Promise<void> {
  const file = await fileSystem.open(path, 'create');
  try {
    await file.write([bytes], 0);
    await file.sync();
  } finally {
    await file.close();
  }
}
