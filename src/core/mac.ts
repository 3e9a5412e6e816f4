/** Length of every MAC and identifier in a Kloset store, in bytes. */
export const MAC_BYTES = 32;

/** Lower-case hex of a MAC or identifier. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Equality of two byte strings. Not constant-time: MACs here guard against damage, and nobody learns from the timing. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
