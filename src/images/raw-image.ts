import { mapAhead } from '../core/concurrency.ts';
import { BLOCK_SIZE, type ByteRange, MiB } from '../core/units.ts';
import type { ImageSink } from './image-sink.ts';
import { extentsOf, type ImageSource } from './image-source.ts';

/** Bytes read at a time, and reads ahead of the one that is being written. */
const STEP_BYTES = 1 * MiB;
const READS_AHEAD = 8;

/** Writes the disk as it is, its zeroes as holes. `onProgress` is told of every byte of it once. */
export async function writeRawImage(
  source: ImageSource,
  sink: ImageSink,
  onProgress: (bytes: number) => void,
): Promise<void> {
  for await (const { length, bytes } of mapAhead(stepsOf(source), READS_AHEAD, (step) => readStep(source, step))) {
    if (bytes === undefined) await sink.skip(length);
    else await writeSparse(bytes, sink);
    onProgress(length);
  }
}

interface Step extends ByteRange {
  readonly zero: boolean;
}

async function* stepsOf(source: ImageSource): AsyncGenerator<Step> {
  let offset = 0;
  for await (const { length, zero } of extentsOf(source)) {
    for (let done = 0; done < length; ) {
      const step = Math.min(length - done, zero ? length : STEP_BYTES);
      yield { offset: offset + done, length: step, zero };
      done += step;
    }
    offset += length;
  }
}

async function readStep(source: ImageSource, { offset, length, zero }: Step) {
  if (zero) return { length, bytes: undefined };
  const bytes = Buffer.allocUnsafe(length);
  await source.read(offset, bytes);
  return { length, bytes };
}

/** Blocks of zeroes become holes, whatever was known of them. */
async function writeSparse(bytes: Buffer, sink: ImageSink): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const zero = isZero(bytes.subarray(at, at + BLOCK_SIZE));
    let end = at + BLOCK_SIZE;
    while (end < bytes.length && isZero(bytes.subarray(end, end + BLOCK_SIZE)) === zero) end += BLOCK_SIZE;
    const run = bytes.subarray(at, end);
    if (zero) await sink.skip(run.length);
    else await sink.write(run);
    at = end;
  }
}

/** Whether there is nothing but zeroes; most bytes of others end it at once. */
export function isZero(bytes: Buffer): boolean {
  return bytes[0] === 0 && bytes.compare(bytes, 1, bytes.length, 0, bytes.length - 1) === 0;
}
