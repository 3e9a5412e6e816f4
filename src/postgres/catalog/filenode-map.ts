/**
 * `pg_filenode.map`: the files of catalogs that must be found before pg_class can be read, and of all shared ones. Source:
 * src/backend/utils/cache/relmapper.c. The checksum is not compared: what is read here has had its MAC compared.
 */
const RELMAPPER_FILEMAGIC = 0x592717;
const HEADER_BYTES = 8;
const MAPPING_BYTES = 8;
/** Mappings that have place: 62, from version 16 on 64. */
const MAPPINGS_MAX = 64;

/** Bytes that are worth reading: the largest version's. */
export const FILENODE_MAP_BYTES_MAX = HEADER_BYTES + MAPPINGS_MAX * MAPPING_BYTES;

/** The number of a mapped relation's file, by its oid; empty for a file of another form. */
export function readFilenodeMap(file: Uint8Array): Map<number, number> {
  const found = new Map<number, number>();
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.byteLength < HEADER_BYTES || view.getUint32(0, true) !== RELMAPPER_FILEMAGIC) return found;
  const fitting = Math.floor((file.byteLength - HEADER_BYTES) / MAPPING_BYTES);
  const count = Math.min(view.getUint32(4, true), MAPPINGS_MAX, fitting);
  for (let at = HEADER_BYTES; at < HEADER_BYTES + count * MAPPING_BYTES; at += MAPPING_BYTES) {
    found.set(view.getUint32(at, true), view.getUint32(at + 4, true));
  }
  return found;
}
