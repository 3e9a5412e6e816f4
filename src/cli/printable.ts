const decoder = new TextDecoder('utf-8', { fatal: true });

/** Text for terminals: bytes that are no UTF-8, and control characters that could move a cursor, as `\xNN`. */
export function printable(bytes: Uint8Array): string {
  const text = utf8Of(bytes);
  if (text !== undefined)
    return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\\]/gu, (found) => escaped(Buffer.from(found)));
  return Array.from(bytes, (byte) => {
    const isPlain = byte >= 0x20 && byte < 0x7f && byte !== 0x5c;
    return isPlain ? String.fromCharCode(byte) : escaped(Uint8Array.of(byte));
  }).join('');
}

/** The text that the bytes are, exactly; undefined if they are none. */
export function utf8Of(bytes: Uint8Array): string | undefined {
  try {
    const text = decoder.decode(bytes);
    // A byte order mark is dropped in silence.
    return Buffer.byteLength(text) === bytes.byteLength ? text : undefined;
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

/** For JSON: bytes as text under `key`; what is no UTF-8 is null there and in hex under `keyHex`. */
export function named(key: string, bytes: Uint8Array): Record<string, string | null> {
  const text = utf8Of(bytes);
  return text === undefined ? { [key]: null, [`${key}Hex`]: Buffer.from(bytes).toString('hex') } : { [key]: text };
}

function escaped(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => (byte === 0x5c ? '\\\\' : `\\x${byte.toString(16).padStart(2, '0')}`)).join('');
}
