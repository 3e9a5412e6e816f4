import { describe, expect, it } from 'vitest';
import { CorruptStoreError, UnsupportedError } from '../../../src/core/errors.ts';
import { parseConfig } from '../../../src/kloset/config.ts';
import { checkEnvelope, openEnvelope } from '../../../src/kloset/envelope.ts';
import { resourceTypes, versions } from '../../../src/kloset/format.ts';
import { type Encodable, encodeMsgpack } from '../../support/msgpack-writer.ts';
import { configFields, envelope, macOf } from '../../support/store-writer.ts';

const expected = { type: resourceTypes.state, versionMax: versions.v1_1_0, name: 'State x' };
const payload = Buffer.from('payload');

describe('an envelope', () => {
  it.each(['_KLOSET_', '_PLAKAR_'])('is opened under the magic %s', (magic) => {
    const resource = envelope(resourceTypes.state, versions.v1_1_0, payload);
    resource.write(magic, 'latin1');
    expect(Buffer.from(openEnvelope(resource, expected).payload)).toEqual(payload);
  });

  it('is opened with an older version, and says which', () => {
    expect(openEnvelope(envelope(resourceTypes.state, versions.v1_0_0, payload), expected).version).toBe(0x10000);
  });

  it('is refused with a newer version, both named', () => {
    for (const version of [0x10101, 0x10200, 0x20000, 0xffffffff]) {
      expect(() => openEnvelope(envelope(resourceTypes.state, version, payload), expected)).toThrow(UnsupportedError);
    }
    expect(() => openEnvelope(envelope(resourceTypes.state, 0x20301, payload), expected)).toThrow(/2\.3\.1.*1\.1\.0/);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['another magic', Buffer.from(`_KLOSEX_${'.'.repeat(60)}`), /does not begin with/],
    ['another type', envelope(resourceTypes.packfile, versions.v1_0_0, payload), /is a packfile, not a state/],
    ['too few bytes', new Uint8Array(47), /cut short/],
  ])('is refused with %s', (_, resource, message) => {
    expect(() => openEnvelope(resource, expected)).toThrow(CorruptStoreError);
    expect(() => openEnvelope(resource, expected)).toThrow(message);
  });

  it('covers every byte before its MAC', () => {
    const sound = envelope(resourceTypes.state, versions.v1_1_0, payload);
    const opened = openEnvelope(sound, expected);
    expect(() => checkEnvelope(opened, macOf(opened.covered), 'State x')).not.toThrow();
    for (let at = 16; at < sound.byteLength; at++) {
      const changed = Buffer.from(sound);
      changed[at]! ^= 1;
      const other = openEnvelope(changed, expected);
      expect(() => checkEnvelope(other, macOf(other.covered), 'State x')).toThrow(/State x is damaged/);
    }
  });
});

const config = (fields: Encodable, version: number = versions.v1_0_0) =>
  parseConfig(envelope(resourceTypes.config, version, encodeMsgpack(fields)));

const encryption = {
  SubKeyAlgorithm: 'AES256-KW',
  DataAlgorithm: 'AES256-GCM-SIV',
  ChunkSize: 65536,
  Canary: new Uint8Array(100),
  KDFParams: { KDF: 'SCRYPT', Salt: new Uint8Array(16), scrypt: { N: 32768, R: 8, P: 1, KeyLen: 32 } },
};

describe('CONFIG', () => {
  it('is read', () => {
    const read = config({ ...configFields, Compression: { Algorithm: 'LZ4' }, Encryption: encryption, Unknown: 1 });
    expect(read).toMatchObject({ hashing: 'SHA256', compression: 'LZ4', chunkBytesMax: 8 << 20 });
    expect(read.encryption).toMatchObject({ segmentBytes: 65536, kdf: { name: 'SCRYPT', n: 32768, r: 8, p: 1 } });
  });

  it('gives salt and canary as copies: they go to another thread', () => {
    const { canary, kdf } = config({ ...configFields, Encryption: encryption }).encryption!;
    expect([canary.buffer.byteLength, kdf.salt.buffer.byteLength]).toEqual([100, 16]);
  });

  it.each<[string, Encodable]>([
    ['hashing', { ...configFields, Hashing: { Algorithm: 'MD5', Bits: 256 } }],
    ['a hash of other length', { ...configFields, Hashing: { Algorithm: 'BLAKE3', Bits: 512 } }],
    ['compression', { ...configFields, Compression: { Algorithm: 'BROTLI' } }],
    ['subkey encryption', { ...configFields, Encryption: { ...encryption, SubKeyAlgorithm: 'ROT13' } }],
    ['data encryption', { ...configFields, Encryption: { ...encryption, DataAlgorithm: 'AES256-CBC' } }],
    ['key derivation', { ...configFields, Encryption: { ...encryption, KDFParams: { KDF: 'BCRYPT' } } }],
    ['chunks without size', { ...configFields, Chunking: { MaxSize: 0 } }],
    ['chunks beyond the limit', { ...configFields, Chunking: { MaxSize: 2 ** 26 + 1 } }],
  ])('is refused with unknown %s', (_, fields) => expect(() => config(fields)).toThrow(UnsupportedError));

  it('is refused with any version but 1.0.0', () => {
    expect(() => config(configFields, 0x900)).toThrow(/0\.9\.0.*1\.0\.0 only/);
    expect(() => config(configFields, 0x10001)).toThrow(UnsupportedError);
  });

  it('is refused without a repository id', () => {
    expect(() => config({ ...configFields, RepositoryID: new Uint8Array(15) })).toThrow(/RepositoryID/);
  });
});
