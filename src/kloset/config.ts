import { CorruptStoreError, UnsupportedError } from '../core/errors.ts';
import type { KdfParameters } from './codec/key-derivation.ts';
import { type Envelope, openEnvelope } from './envelope.ts';
import { formatVersion, resourceTypes, versions } from './format.ts';
import { CHUNK_BYTES_MAX } from './limits.ts';
import { MsgpackRecord } from './record.ts';

const HASHINGS = ['BLAKE3', 'SHA256'] as const;
const COMPRESSIONS = ['LZ4', 'GZIP', 'ZSTD'] as const;
const SUBKEY_ALGORITHMS = ['AES256-KW', 'AES256-GCM'] as const;
const DATA_ALGORITHMS = ['AES256-GCM-SIV'] as const;

export interface EncryptionConfig {
  readonly subKeyAlgorithm: (typeof SUBKEY_ALGORITHMS)[number];
  readonly dataAlgorithm: (typeof DATA_ALGORITHMS)[number];
  /** Plain bytes of every segment but the last. */
  readonly segmentBytes: number;
  /** As CONFIG says: not yet bounded or authenticated. */
  readonly kdf: KdfParameters;
  /** An encrypted value: it decrypts under the right key only. */
  readonly canary: Uint8Array;
}

/** CONFIG (kloset-format section 6). */
export interface StoreConfig {
  /** 16 raw bytes. */
  readonly repositoryId: Uint8Array;
  readonly hashing: (typeof HASHINGS)[number];
  readonly compression: (typeof COMPRESSIONS)[number] | undefined;
  readonly encryption: EncryptionConfig | undefined;
  /** Plain bytes of a chunk at most. */
  readonly chunkBytesMax: number;
  /** To be checked once the key is known (4.1). */
  readonly envelope: Envelope;
}

/** Parses CONFIG; its footer can only be verified afterwards. Throws CorruptStoreError or UnsupportedError. */
export function parseConfig(resource: Uint8Array): StoreConfig {
  const envelope = openEnvelope(resource, { type: resourceTypes.config, versionMax: versions.v1_0_0, name: 'CONFIG' });
  if (envelope.version !== versions.v1_0_0) {
    // plakar itself wants exactly this version, so there is no telling what an older one would mean.
    throw new UnsupportedError(
      `CONFIG has format version ${formatVersion(envelope.version)}; this kloset-nbd reads 1.0.0 only`,
    );
  }
  const fields = MsgpackRecord.decode(envelope.payload, 'CONFIG');
  const repositoryId = fields.bytes('RepositoryID');
  if (repositoryId.byteLength !== 16) throw new CorruptStoreError('CONFIG: RepositoryID has not 16 bytes');
  const hashing = fields.record('Hashing');
  const bits = hashing.integer('Bits');
  if (bits !== 256) throw new UnsupportedError(`CONFIG names a hash of ${bits} bits; this kloset-nbd reads 256`);
  return {
    repositoryId,
    hashing: oneOf(HASHINGS, hashing.text('Algorithm'), 'hashing'),
    compression: fields.has('Compression')
      ? oneOf(COMPRESSIONS, fields.record('Compression').text('Algorithm'), 'compression')
      : undefined,
    encryption: fields.has('Encryption') ? parseEncryption(fields.record('Encryption')) : undefined,
    chunkBytesMax: chunkBytesMax(fields.record('Chunking').integer('MaxSize')),
    envelope,
  };
}

function chunkBytesMax(configured: number): number {
  if (configured <= 0 || configured > CHUNK_BYTES_MAX) {
    throw new UnsupportedError(
      `CONFIG allows chunks of ${configured} bytes; this kloset-nbd reads chunks of 1 to ${CHUNK_BYTES_MAX}`,
    );
  }
  return configured;
}

function parseEncryption(fields: MsgpackRecord): EncryptionConfig {
  return {
    subKeyAlgorithm: oneOf(SUBKEY_ALGORITHMS, fields.text('SubKeyAlgorithm'), 'subkey encryption'),
    dataAlgorithm: oneOf(DATA_ALGORITHMS, fields.text('DataAlgorithm'), 'data encryption'),
    segmentBytes: fields.integer('ChunkSize'),
    kdf: parseKdf(fields.record('KDFParams')),
    // A copy (Buffer's slice would be none): a view would drag all of CONFIG to the thread that derives the key.
    canary: new Uint8Array(fields.bytes('Canary')),
  };
}

function parseKdf(kdf: MsgpackRecord): KdfParameters {
  const name = oneOf(['ARGON2ID', 'SCRYPT', 'PBKDF2'] as const, kdf.text('KDF'), 'key derivation');
  // The three keys are lower case, all others in CONFIG capitalised (6).
  const fields = kdf.record(name.toLowerCase());
  const common = { salt: new Uint8Array(kdf.bytes('Salt')), keyBytes: fields.integer('KeyLen') };
  switch (name) {
    case 'ARGON2ID':
      return {
        name,
        time: fields.integer('Time'),
        memoryKiB: fields.integer('Memory'),
        threads: fields.integer('Threads'),
        ...common,
      };
    case 'SCRYPT':
      return { name, n: fields.integer('N'), r: fields.integer('R'), p: fields.integer('P'), ...common };
    case 'PBKDF2':
      return { name, iterations: fields.integer('Iterations'), hashing: fields.text('Hashing'), ...common };
  }
}

function oneOf<const T extends readonly string[]>(known: T, found: string, what: string): T[number] {
  if (known.includes(found)) return found;
  throw new UnsupportedError(
    `The store uses ${what} ${JSON.stringify(found)}; this kloset-nbd reads ${known.join(', ')}. Use a newer kloset-nbd.`,
  );
}
