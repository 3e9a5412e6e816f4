import { copyBytes } from '../core/copy-bytes.ts';
import { assert } from '../core/errors.ts';
import { beginSeal, type Seal, sealHeader, TAG_BYTES } from './sealed-format.ts';

/** Bytes of the sealed file that holds `plainBytes`. */
export function sealedLength(plainBytes: number, segmentBytes: number): number {
  const segments = Math.max(1, Math.ceil(plainBytes / segmentBytes));
  return sealHeader.sizeBytes + plainBytes + segments * TAG_BYTES;
}

/** Makes a whole sealed file in `into`, which is as long as `sealedLength` says: what SealedWriter would write. */
export function sealInto(into: Uint8Array, plain: Uint8Array, seal: Seal): void {
  const { segmentBytes } = seal;
  assert(into.byteLength === sealedLength(plain.byteLength, segmentBytes), 'the buffer is as long as the sealed file');
  const { header, cipher } = beginSeal(seal);
  into.set(header);
  let at = sealHeader.sizeBytes;
  for (let index = 0, start = 0; index === 0 || start < plain.byteLength; index++, start += segmentBytes) {
    const data = plain.subarray(start, start + segmentBytes);
    const { stored, tag } = cipher.seal(data, index, start + segmentBytes >= plain.byteLength);
    copyBytes(stored, into, at);
    into.set(tag, at + stored.byteLength);
    at += stored.byteLength + tag.byteLength;
  }
}
