/** Where the parts of a single-file archive lie (kloset-format 2.2), wherever the file is. */
import { CorruptStoreError, UnsupportedError } from '../core/errors.ts';
import { bytes, struct, u32, u64 } from '../core/struct.ts';
import { formatVersion, versions } from './format.ts';

const PTAR_MAGIC = '_PLATAR_';
export const ptarHeader = struct('ptar header', 'le', 12, [
  ['magic', bytes(8)],
  ['version', u32],
]);
export const ptarTrailer = struct('ptar trailer', 'le', 48, [
  ['configOffset', u64],
  ['configLength', u64],
  ['packfileOffset', u64],
  ['packfileLength', u64],
  ['stateOffset', u64],
  ['stateLength', u64],
]);

/** The archive's one state has no id of its own. */
export const PTAR_STATE_ID = '0'.repeat(64);

export interface PtarSection {
  readonly offset: number;
  readonly length: number;
}

export interface PtarSections {
  readonly config: PtarSection;
  readonly packfile: PtarSection;
  readonly state: PtarSection;
}

/** Throws CorruptStoreError unless a file of this size can be an archive. */
export function requirePtarSize(sizeBytes: number, name: string): void {
  if (sizeBytes < ptarHeader.sizeBytes + ptarTrailer.sizeBytes) throw notAnArchive(name, 'it is too short');
}

/** From the file's first 12 and last 48 bytes. Throws CorruptStoreError, or UnsupportedError for another version. */
export function parsePtarLayout(
  { head, tail, sizeBytes }: { readonly head: Uint8Array; readonly tail: Uint8Array; readonly sizeBytes: number },
  name: string,
): PtarSections {
  const { magic, version } = ptarHeader.read(head);
  if (Buffer.from(magic).toString('latin1') !== PTAR_MAGIC) {
    throw notAnArchive(name, `it does not begin with ${PTAR_MAGIC}`);
  }
  if (version !== versions.v1_0_0) {
    throw new UnsupportedError(
      `${name} is an archive of version ${formatVersion(version)}; this kloset-nbd reads 1.0.0`,
    );
  }
  const t = readTrailer(name, tail);
  const isContiguous =
    t.configOffset === ptarHeader.sizeBytes &&
    t.packfileOffset === t.configOffset + t.configLength &&
    t.stateOffset === t.packfileOffset + t.packfileLength &&
    t.stateOffset + t.stateLength === sizeBytes - ptarTrailer.sizeBytes;
  if (!isContiguous) {
    throw notAnArchive(name, 'its trailer does not fit the file: its writing was interrupted, or it is damaged');
  }
  return {
    config: { offset: t.configOffset, length: t.configLength },
    packfile: { offset: t.packfileOffset, length: t.packfileLength },
    state: { offset: t.stateOffset, length: t.stateLength },
  };
}

function readTrailer(name: string, tail: Uint8Array) {
  try {
    return ptarTrailer.read(tail);
  } catch (error) {
    if (!(error instanceof CorruptStoreError)) throw error;
    throw notAnArchive(name, `its trailer is none (${error.message}): its writing was interrupted, or it is damaged`);
  }
}

function notAnArchive(name: string, why: string): CorruptStoreError {
  return new CorruptStoreError(`${name} is no archive that can be read: ${why}`);
}
