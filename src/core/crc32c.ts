/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as ext4 and the overlay use it. Pure JavaScript: Node's zlib has
 * only CRC-32. Slicing by eight: eight table look-ups take eight bytes at once.
 */
const POLYNOMIAL = 0x82f63b78;

/** Eight tables of 256, one behind the other: table k advances a byte by k further zero bytes. */
const tables = makeTables();

function makeTables(): Uint32Array {
  const table = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
    table[byte] = crc;
  }
  for (let at = 256; at < table.length; at++) {
    const previous = table[at - 256]!;
    table[at] = (previous >>> 8) ^ table[previous & 0xff]!;
  }
  return table;
}

/**
 * Continues `seed` over `bytes`; an unsigned 32-bit number, not inverted at either end. ext4 seeds with what its fields
 * say; the usual checksum of a whole message is `(crc32c(0xffffffff, message) ^ 0xffffffff) >>> 0`.
 */
export function crc32c(seed: number, bytes: Uint8Array): number {
  const table = tables;
  const length = bytes.length;
  let crc = seed | 0;
  let at = 0;
  for (const last = length - 8; at <= last; at += 8) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      table[1792 + (crc & 0xff)]! ^
      table[1536 + ((crc >>> 8) & 0xff)]! ^
      table[1280 + ((crc >>> 16) & 0xff)]! ^
      table[1024 + (crc >>> 24)]! ^
      table[768 + bytes[at + 4]!]! ^
      table[512 + bytes[at + 5]!]! ^
      table[256 + bytes[at + 6]!]! ^
      table[bytes[at + 7]!]!;
  }
  for (; at < length; at++) crc = (crc >>> 8) ^ table[(crc ^ bytes[at]!) & 0xff]!;
  return crc >>> 0;
}
