/**
 * Files of pre-shared keys as GnuTLS, and so psktool, libnbd, nbdkit and qemu, write them: a line `USER:KEY` for each
 * user, the key in hex. A user whose name begins with # is written `#` and the name in hex; other lines that begin with
 * # are comments.
 */
import { UserError } from '../core/errors.ts';

/** Bytes of a name and of a key that OpenSSL takes. */
export const PSK_NAME_BYTES_MAX = 128;
export const PSK_KEY_BYTES_MAX = 256;
/** Bytes below which a key can be guessed from one recorded handshake; psktool makes 32. */
export const PSK_KEY_BYTES_MIN = 16;

/** The keys by user. Throws UserError, which names the line and never what stands in it. */
export function parsePskFile(text: string, path: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const where = `line ${index + 1} of the PSK file ${path}`;
    const match = /^(#?)([^:]*):((?:[0-9a-f]{2})+)\s*$/i.exec(line);
    if (match === null) {
      if (line.trim() === '' || line.startsWith('#')) continue;
      throw new UserError(`${where} is not USER:KEY with the key in hex: "psktool -u USER -p FILE" writes such lines`);
    }
    const [, hash, written, hex] = match;
    const user = hash === '' ? written! : Buffer.from(written!, 'hex').toString();
    if (user === '' || Buffer.byteLength(user) > PSK_NAME_BYTES_MAX) {
      throw new UserError(`${where}: a user's name has 1 to ${PSK_NAME_BYTES_MAX} bytes`);
    }
    const key = Buffer.from(hex!, 'hex');
    if (key.length < PSK_KEY_BYTES_MIN || key.length > PSK_KEY_BYTES_MAX) {
      throw new UserError(
        `${where}: a key has ${PSK_KEY_BYTES_MIN} to ${PSK_KEY_BYTES_MAX} bytes, two hex digits each`,
      );
    }
    keys.set(user, key);
  }
  if (keys.size === 0) {
    throw new UserError(`the PSK file ${path} has no line USER:KEY: "psktool -u USER -p ${path}" writes one`);
  }
  return keys;
}
