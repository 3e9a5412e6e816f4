import { CorruptStoreError, UnsupportedError } from '../core/errors.ts';
import { equalBytes, MAC_BYTES } from '../core/mac.ts';
import { envelopeHeader, envelopeMagics, formatVersion, type ResourceType, resourceTypeName } from './format.ts';

/** The payload of a resource, and what its envelope says (kloset-format section 3). */
export interface Envelope {
  readonly version: number;
  /** A view into the resource. */
  readonly payload: Uint8Array;
  /** The bytes the MAC covers: header and payload. */
  readonly covered: Uint8Array;
  /** 32 bytes at the end. */
  readonly mac: Uint8Array;
}

/**
 * Takes an envelope apart without verifying its MAC (CONFIG has to be parsed before its key is known).
 * Throws CorruptStoreError on a wrong magic, type or length, UnsupportedError on a version above `versionMax`.
 */
export function openEnvelope(
  resource: Uint8Array,
  { type, versionMax, name }: { type: ResourceType; versionMax: number; name: string },
): Envelope {
  if (resource.byteLength < envelopeHeader.sizeBytes + MAC_BYTES) {
    throw new CorruptStoreError(`${name} is cut short: ${resource.byteLength} bytes`);
  }
  const header = envelopeHeader.read(resource);
  if (!(envelopeMagics as readonly string[]).includes(Buffer.from(header.magic).toString('latin1'))) {
    throw new CorruptStoreError(`${name} does not begin with ${envelopeMagics[0]}: not a Kloset resource, or damaged`);
  }
  if (header.type !== type) {
    throw new CorruptStoreError(`${name} is a ${resourceTypeName(header.type)}, not a ${resourceTypeName(type)}`);
  }
  if (header.version > versionMax) {
    throw new UnsupportedError(
      `${name} has format version ${formatVersion(header.version)}; this kloset-nbd reads up to ` +
        `${formatVersion(versionMax)}. Use a newer kloset-nbd.`,
    );
  }
  const end = resource.byteLength - MAC_BYTES;
  return {
    version: header.version,
    payload: resource.subarray(envelopeHeader.sizeBytes, end),
    covered: resource.subarray(0, end),
    mac: resource.subarray(end),
  };
}

/** Throws CorruptStoreError unless `computed`, the MAC over `envelope.covered`, is the envelope's. */
export function checkEnvelope(envelope: Envelope, computed: Uint8Array, name: string): void {
  if (!equalBytes(envelope.mac, computed)) {
    throw new CorruptStoreError(`${name} is damaged: its MAC does not match its content`);
  }
}
