/**
 * pg_filenode.map: the files of the catalogs that pg_class cannot say, since they are needed to read it. Source:
 * relmapper.c, RelMapFile: magic, count, that many pairs of OID and file number in a table of fixed size, CRC-32C of all
 * before it. In the byte order of the machine.
 */
import { crc32c } from '../../core/crc32c.ts';

const MAGIC = 0x592717;
const HEADER_BYTES = 8;
const PAIR_BYTES = 8;
/** Pairs that the table has place for: up to PostgreSQL 15, and since. */
const TABLE_PAIRS = [62, 64];
const CRC_BYTES = 4;

/** Bytes that are worth reading: the largest version's. */
export const FILENODE_MAP_BYTES_MAX = HEADER_BYTES + Math.max(...TABLE_PAIRS) * PAIR_BYTES + CRC_BYTES;

/** OID of a catalog -> number of its file. Undefined for what is no such map, or a damaged one. */
export function parseFilenodeMap(content: Uint8Array): Map<number, number> | undefined {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  if (view.byteLength < HEADER_BYTES) return undefined;
  const littleEndian = view.getUint32(0, true) === MAGIC;
  if (!littleEndian && view.getUint32(0) !== MAGIC) return undefined;
  const count = view.getUint32(4, littleEndian);
  for (const pairs of TABLE_PAIRS) {
    const coveredBytes = HEADER_BYTES + pairs * PAIR_BYTES;
    if (count > pairs || view.byteLength < coveredBytes + CRC_BYTES) continue;
    const crc = (crc32c(0xffffffff, content.subarray(0, coveredBytes)) ^ 0xffffffff) >>> 0;
    if (crc !== view.getUint32(coveredBytes, littleEndian)) continue;
    const map = new Map<number, number>();
    for (let i = 0; i < count; i++) {
      const at = HEADER_BYTES + i * PAIR_BYTES;
      map.set(view.getUint32(at, littleEndian), view.getUint32(at + 4, littleEndian));
    }
    return map;
  }
  return undefined;
}

/** As parseFilenodeMap; empty for what is no such map. */
export function readFilenodeMap(content: Uint8Array): Map<number, number> {
  return parseFilenodeMap(content) ?? new Map();
}
