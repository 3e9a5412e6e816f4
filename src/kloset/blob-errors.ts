import { CorruptStoreError, type KlosetNbdError, StoreUnavailableError } from '../core/errors.ts';
import { toHex } from '../core/mac.ts';
import type { BlobLocation } from './blob-index.ts';
import type { BlobId } from './blob-replica.ts';
import { envelopeHeader, resourceTypeName } from './format.ts';

/** Something in the store refers to a blob that is nowhere. */
export function notHeld(id: BlobId): CorruptStoreError {
  const blobType = resourceTypeName(id.type);
  const mac = toHex(id.mac);
  return new CorruptStoreError(`The store holds no ${blobType} ${mac}, which something in it refers to`, {
    details: { blobType, mac },
  });
}

/** Names the blob and the place where it should have been. */
export function located(
  error: CorruptStoreError | StoreUnavailableError,
  id: BlobId,
  location: BlobLocation,
): KlosetNbdError {
  const details = {
    blobType: resourceTypeName(id.type),
    mac: toHex(id.mac),
    packfile: location.packfile,
    offset: envelopeHeader.sizeBytes + location.offset,
    length: location.length,
  };
  const message = `${details.blobType} ${details.mac} in packfile ${location.packfile} at byte ${details.offset}: ${error.message}`;
  return error instanceof CorruptStoreError
    ? new CorruptStoreError(message, { details, cause: error })
    : new StoreUnavailableError(message, { details, cause: error });
}
