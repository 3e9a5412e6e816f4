/**
 * Whether a packfile is as it was written. In a store without compression and encryption nothing else vouches for a
 * snapshot's header: its blob is named at random, not by its MAC, and there is no frame or cipher that would notice a
 * changed bit. The packfile's envelope covers it (kloset-format 3, 8.1).
 *
 * No back-end tells how long a packfile is, so its end is worked out: the states list all its blobs, padding too; index
 * and footer follow the last one, and in such a store they have a fixed size for each blob.
 */
import { CorruptStoreError } from '../core/errors.ts';
import { equalBytes, MAC_BYTES } from '../core/mac.ts';
import type { CodecParameters } from './codec/codec.ts';
import { createRunningMac } from './codec/hash.ts';
import { envelopeHeader, packfileFooter, packfileIndexRecord } from './format.ts';
import { PACKFILE_WINDOW_BYTES } from './limits.ts';
import type { State } from './state.ts';
import { readStates, type StateReader } from './state-reader.ts';
import { scanState } from './state-scan.ts';

/** What the states say about a packfile. */
interface PackfileShape {
  /** Where the last blob ends in the payload: the index begins there. */
  readonly blobsEnd: number;
  readonly blobCount: number;
}

/** How far a check may go. */
interface PackfileRequest {
  /** Hex id. */
  readonly likelyState: string;
  readonly bytesMax: number;
}

const NOTHING: PackfileShape = { blobsEnd: 0, blobCount: 0 };

const FOOTER_LENGTH_BYTES = 4;

export class PackfileCheck {
  readonly #reader: StateReader;
  readonly #codec: CodecParameters;
  /** Packfiles found sound, or being looked at. */
  readonly #sound = new Map<string, Promise<void>>();

  constructor(reader: StateReader, codec: CodecParameters) {
    this.#reader = reader;
    this.#codec = codec;
  }

  /**
   * Rejects with CorruptStoreError unless the packfile's envelope fits its content; once sound it is not read again. One
   * of more than `bytesMax` bytes is taken as it is. `likelyState` is looked into first: the state that lists it.
   */
  async requireSound(packfile: string, request: PackfileRequest): Promise<void> {
    let check = this.#sound.get(packfile);
    if (check === undefined) {
      check = this.#check(packfile, request);
      this.#sound.set(packfile, check);
    }
    try {
      await check;
    } catch (error) {
      this.#sound.delete(packfile); // The fault may lie on the way: the next attempt reads it again.
      throw error;
    }
  }

  async #check(packfile: string, { likelyState, bytesMax }: PackfileRequest): Promise<void> {
    const ids = await this.#reader.store.list('states');
    const likely = ids.includes(likelyState) ? await this.#shapeIn(packfile, [likelyState]) : NOTHING;
    if (likely.blobCount > 0) {
      try {
        return await this.#checkEnvelope(packfile, likely, bytesMax);
      } catch (error) {
        if (!(error instanceof CorruptStoreError)) throw error; // Another state may know more of it.
      }
    }
    const shape = await this.#shapeIn(packfile, ids);
    if (shape.blobCount === 0) throw new CorruptStoreError(`no state says what packfile ${packfile} holds`);
    await this.#checkEnvelope(packfile, shape, bytesMax);
  }

  /** The writer lists all blobs of a packfile in one state: the one among these that has the most of them. */
  async #shapeIn(packfile: string, stateIds: readonly string[]): Promise<PackfileShape> {
    const id = Buffer.from(packfile, 'hex');
    let best = NOTHING;
    // One after the other: all of them at once can be as large as the store's index.
    for (const stateId of stateIds) {
      const { states } = await readStates(this.#reader, [stateId]);
      for (const state of states) {
        const shape = shapeIn(state, id);
        if (shape.blobCount > best.blobCount) best = shape;
      }
    }
    return best;
  }

  async #checkEnvelope(packfile: string, { blobsEnd, blobCount }: PackfileShape, bytesMax: number): Promise<void> {
    const footerAt = envelopeHeader.sizeBytes + blobsEnd + blobCount * packfileIndexRecord.sizeBytes;
    const coveredBytes = footerAt + packfileFooter.sizeBytes + FOOTER_LENGTH_BYTES;
    if (coveredBytes > bytesMax) return;
    const { store, counters } = this.#reader;
    const read = async (at: number, target: Uint8Array) => {
      await store.readPackfile(packfile, at, target);
      counters.storeRequests++;
      counters.storeBytes += target.byteLength;
    };
    const mac = await createRunningMac(this.#codec.hashing, this.#codec.macKey);
    const window = new Uint8Array(Math.min(coveredBytes, PACKFILE_WINDOW_BYTES));
    for (let at = 0; at < coveredBytes; at += window.byteLength) {
      const part = window.subarray(0, coveredBytes - at);
      await read(at, part);
      mac.update(part);
    }
    const recorded = new Uint8Array(MAC_BYTES);
    await read(coveredBytes, recorded);
    if (!equalBytes(mac.digest(), recorded)) {
      throw new CorruptStoreError(`packfile ${packfile} is damaged: its MAC does not match its content`);
    }
  }
}

function shapeIn(state: State, packfile: Uint8Array): PackfileShape {
  let blobsEnd = 0;
  let blobCount = 0;
  scanState(state, {
    location(records, { packfileAt, offset, length }) {
      if (!equalBytes(records.subarray(packfileAt, packfileAt + MAC_BYTES), packfile)) return;
      blobsEnd = Math.max(blobsEnd, offset + length);
      blobCount++;
    },
    other() {},
  });
  return { blobsEnd, blobCount };
}
