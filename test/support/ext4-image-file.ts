/** An image written to a sparse file, and the tools that judge it. */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { BLOCK_SIZE, MiB } from '../../src/core/units.ts';
import type { Ext4Image } from '../../src/ext4/image.ts';
import { commandPath } from './requires.ts';

const run = promisify(execFile);
const zeroBlock = new Uint8Array(BLOCK_SIZE);

/** Writes `image` to `path`; blocks of zeroes become holes, with `metadataOnly` the content of files, too. */
export async function writeImage(
  image: Ext4Image,
  path: string,
  { metadataOnly = false }: { metadataOnly?: boolean } = {},
): Promise<void> {
  const output = await open(path, 'w');
  try {
    await output.truncate(image.sizeBytes);
    const { map, files } = image.layout.geometry;
    const firstFile = map.toPhysical(files) * BLOCK_SIZE;
    for (const run of image.extents({ offset: 0, length: image.sizeBytes })) {
      if (run.zero) continue;
      for (let done = 0; done < run.length; ) {
        const at = run.offset + done;
        const { kind, blocks } = image.describe(at / BLOCK_SIZE);
        // From the first file on, whose content is to be left out, one run of one kind at a time.
        const most = metadataOnly && at >= firstFile ? blocks * BLOCK_SIZE : Math.min(MiB, untilFirst(firstFile, at));
        const length = Math.min(run.length - done, most);
        if (!(metadataOnly && kind === 'file')) await copyRange(image, output, at, length);
        done += length;
      }
    }
  } finally {
    await output.close();
  }
}

function untilFirst(firstFile: number, at: number): number {
  return at < firstFile ? firstFile - at : Number.POSITIVE_INFINITY;
}

async function copyRange(image: Ext4Image, output: Awaited<ReturnType<typeof open>>, offset: number, length: number) {
  const buffer = new Uint8Array(length);
  await image.read(offset, buffer);
  for (let from = 0; from < length; ) {
    while (from < length && isZero(buffer, from)) from += BLOCK_SIZE;
    let to = from;
    while (to < length && !isZero(buffer, to)) to += BLOCK_SIZE;
    if (to > from) await output.write(buffer, from, to - from, offset + from);
    from = to;
  }
}

function isZero(buffer: Uint8Array, at: number): boolean {
  return Buffer.compare(buffer.subarray(at, at + BLOCK_SIZE), zeroBlock) === 0;
}

/** What e2fsck -fn says beyond its usual lines; empty for a filesystem without a remark. Throws if it takes too long. */
export async function fsckRemarks(
  path: string,
  { timeoutMs = 60_000 }: { timeoutMs?: number } = {},
): Promise<string[]> {
  const usual = /^(e2fsck \d|Pass [1-5]:|\S.*: \d+\/\d+ files \(|\s*$)/;
  const { output, code } = await outputOf(commandPath('e2fsck'), ['-fn', path], timeoutMs);
  const remarks = output.split('\n').filter((line) => !usual.test(line));
  return code === 0 ? remarks : [...remarks, `exit status ${code}`];
}

/** Standard output of one debugfs command. */
export async function debugfs(path: string, command: string): Promise<string> {
  const { stdout } = await run(commandPath('debugfs'), ['-R', command, path], { maxBuffer: 64 * MiB });
  return stdout;
}

async function outputOf(program: string, parameters: string[], timeoutMs: number) {
  try {
    const { stdout, stderr } = await run(program, parameters, { timeout: timeoutMs, maxBuffer: 64 * MiB });
    return { output: stdout + stderr, code: 0 };
  } catch (error) {
    const failed = error as { code?: number | string; killed?: boolean; stdout?: string; stderr?: string };
    if (failed.killed || typeof failed.code !== 'number') throw error;
    return { output: `${failed.stdout}${failed.stderr}`, code: failed.code };
  }
}

/** A directory that is gone when `work` has ended. `parent` for files larger than the usual place can hold. */
export async function withTemporaryDirectory<T>(work: (path: string) => Promise<T>, parent = tmpdir()): Promise<T> {
  const path = await mkdtemp(join(parent, 'ext4-test-'));
  try {
    return await work(path);
  } finally {
    await rm(path, { recursive: true, force: true });
  }
}
