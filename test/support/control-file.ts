/** pg_control, changed as another build of PostgreSQL would have made it. Source: pg_control.h. */
import { readFileSync, writeFileSync } from 'node:fs';
import { crc32c } from '../../src/core/crc32c.ts';

/** As initdb makes it by default: page, pages of a file, WAL page, in this order. */
const DEFAULTS = [8192, 131_072, 8192];

/** Gives the cluster pages of another size, and a checksum that fits. */
export function changePageSize(path: string, pageBytes: number): void {
  const bytes = readFileSync(path);
  const checksumAt = findChecksum(bytes);
  const wanted = Buffer.from(Uint32Array.from(DEFAULTS).buffer);
  const at = bytes.indexOf(wanted);
  if (at === -1) throw new Error('pg_control has no sizes as initdb makes them');
  bytes.writeUInt32LE(pageBytes, at);
  bytes.writeUInt32LE(checksum(bytes.subarray(0, checksumAt)), checksumAt);
  writeFileSync(path, bytes);
}

/** The checksum stands behind what it is of. */
function findChecksum(bytes: Buffer): number {
  for (let at = 4; at < 1024; at += 4) if (bytes.readUInt32LE(at) === checksum(bytes.subarray(0, at))) return at;
  throw new Error('pg_control has no checksum');
}

function checksum(bytes: Uint8Array): number {
  return (crc32c(0xffffffff, bytes) ^ 0xffffffff) >>> 0;
}
