/**
 * Every envelope and every blob of the fixture stores, found by hand from packfile footers (kloset-format.md 8.1), not
 * through the reader: decodes and has the MAC it is filed under.
 */
import { createSecretKey, type KeyObject } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../../src/core/mac.ts';
import { MiB } from '../../../../src/core/units.ts';
import { type Codec, type CodecParameters, createCodec, plainHash } from '../../../../src/kloset/codec/codec.ts';

const storesDir = path.resolve(import.meta.dirname, '../../../../fixtures/stores');
const manifestOf = (name: string) => path.join(storesDir, name, 'manifest.json');
const stores = existsSync(storesDir) ? readdirSync(storesDir).filter((name) => existsSync(manifestOf(name))) : [];

const ENVELOPE_HEADER_BYTES = 16;
const MAC_BYTES = 32;
const PACKFILE_FOOTER_BYTES = 56;
const INDEX_RECORD_BYTES = 56;
const types = { state: 3, packfile: 4, snapshot: 5, signature: 6, random: 255 } as const;

interface Manifest {
  readonly hashing: 'BLAKE3' | 'SHA256';
  readonly compression: 'LZ4' | 'GZIP' | 'ZSTD' | null;
  readonly encryption: {
    readonly derivedKeyHex: string;
    readonly subkeyAlgorithm: 'AES256-KW' | 'AES256-GCM';
    readonly chunkSize: number;
  } | null;
  readonly repositoryId: string;
}

describe.each(['webassembly', 'typescript'] as const)('fixture stores with %s kernels', (kernels) => {
  test('are there', () => expect(stores.length).toBeGreaterThan(10));

  test.each(stores)('%s: every blob decodes to what its MAC says', async (name) => {
    const manifest = JSON.parse(readFileSync(manifestOf(name), 'utf8')) as Manifest;
    const codec = await createCodec(await parametersOf(manifest), { kernels });
    let blobs = 0;
    for (const { where, envelope } of envelopesOf(path.join(storesDir, name))) {
      const footerAt = envelope.byteLength - MAC_BYTES;
      expect(toHex(codec.mac(envelope.subarray(0, footerAt))), where).toBe(toHex(envelope.subarray(footerAt)));
      const payload = envelope.subarray(ENVELOPE_HEADER_BYTES, footerAt);
      const type = envelope.readUInt32LE(8);
      if (type === types.state) expect(codec.decode(payload, 16 * MiB).byteLength).toBeGreaterThan(0);
      if (type === types.packfile) blobs += checkPackfile(codec, payload);
    }
    expect(blobs).toBeGreaterThan(0);
  });
});

function checkPackfile(codec: Codec, payload: Buffer): number {
  const footerBytes = payload.readUInt32LE(payload.byteLength - 4);
  const footerAt = payload.byteLength - 4 - footerBytes;
  const footer = Buffer.from(codec.decode(payload.subarray(footerAt, footerAt + footerBytes), PACKFILE_FOOTER_BYTES));
  const indexAt = Number(footer.readBigUInt64LE(12));
  const index = Buffer.from(codec.decode(payload.subarray(indexAt, footerAt), 16 * MiB));
  expect(toHex(codec.mac(index))).toBe(toHex(footer.subarray(20, 52)));
  let checked = 0;
  for (let at = 0; at < index.byteLength; at += INDEX_RECORD_BYTES) {
    const type = index.readUInt32LE(at);
    if (type === types.random) continue;
    const offset = Number(index.readBigUInt64LE(at + 40));
    const stored = payload.subarray(offset, offset + index.readUInt32LE(at + 48));
    const plain = codec.decode(stored, 8 * MiB);
    if (type !== types.snapshot && type !== types.signature) {
      expect(toHex(codec.mac(plain))).toBe(toHex(index.subarray(at + 8, at + 40)));
    }
    const shared = new Uint8Array(new SharedArrayBuffer(plain.byteLength));
    codec.decodeChecked(stored, shared, codec.mac(plain));
    expect(Buffer.compare(shared, plain)).toBe(0);
    checked++;
  }
  return checked;
}

async function parametersOf({ hashing, compression, encryption, repositoryId }: Manifest): Promise<CodecParameters> {
  const key = encryption === null ? undefined : createSecretKey(Buffer.from(encryption.derivedKeyHex, 'hex'));
  const plainKey = await plainHash(hashing, Buffer.from(repositoryId.replaceAll('-', ''), 'hex'));
  return {
    hashing,
    macKey: key ?? createSecretKey(plainKey),
    compression: compression ?? undefined,
    encryption: encryption === null ? undefined : encryptionOf(encryption, key!),
  };
}

function encryptionOf(
  { subkeyAlgorithm, chunkSize }: NonNullable<Manifest['encryption']>,
  key: KeyObject,
): CodecParameters['encryption'] {
  return { subKeyAlgorithm: subkeyAlgorithm, dataAlgorithm: 'AES256-GCM-SIV', segmentBytes: chunkSize, key };
}

/** The states and packfiles of a store: files of a directory (2.1) or sections of an archive (2.2). */
function envelopesOf(directory: string): { where: string; envelope: Buffer }[] {
  const archive = path.join(directory, 'archive.ptar');
  if (existsSync(archive)) {
    const data = readFileSync(archive);
    return [data.byteLength - 32, data.byteLength - 16].map((at) => {
      const [offset, length] = [Number(data.readBigInt64LE(at)), Number(data.readBigInt64LE(at + 8))];
      return { where: `${archive} at ${offset}`, envelope: data.subarray(offset, offset + length) };
    });
  }
  return ['states', 'packfiles'].flatMap((kind) =>
    readdirSync(path.join(directory, 'store', kind), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath, entry.name))
      .map((where) => ({ where, envelope: readFileSync(where) })),
  );
}
