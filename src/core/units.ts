/** Bytes in a binary kilo-, mega- and gigabyte. */
export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** The block of the device, of ext4 and of the overlay, in bytes. */
export const BLOCK_SIZE = 4096;

/** A range of bytes on a device: `offset` inclusive, both integers below 2 ** 53. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** `value` rounded up to a multiple of `unit`. Both below 2 ** 53. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Bytes for people, as plakar writes them: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Reads `10G`, `512M`, `64KiB`, `4096`: powers of 1024. Returns undefined for anything else. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const power = ' KMGTP'.indexOf((match[2] ?? '').toUpperCase() || ' ');
  const bytes = Math.floor(Number(match[1]) * 1024 ** power);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
