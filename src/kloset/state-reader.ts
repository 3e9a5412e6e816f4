/** From the states a store lists to the merged index, at the start and whenever they are listed again. */
import { mapConcurrently } from '../core/concurrency.ts';
import type { ReadCounters } from '../core/counters.ts';
import { CorruptStoreError, UnsupportedError } from '../core/errors.ts';
import { equalBytes, MAC_BYTES } from '../core/mac.ts';
import { type Progress, silentProgress } from '../core/progress.ts';
import type { Codec } from './codec/codec.ts';
import { checkEnvelope, openEnvelope } from './envelope.ts';
import { resourceTypes, versions } from './format.ts';
import { STATE_PLAIN_BYTES_MAX, STATES_IN_FLIGHT_MAX } from './limits.ts';
import { MissingResourceError } from './remote-store.ts';
import { damagedState, parseState, type State } from './state.ts';
import type { KlosetStore, ReadOptions } from './store.ts';

/** Reads states of one store. */
export interface StateReader {
  readonly store: KlosetStore;
  readonly codec: Codec;
  readonly counters: ReadCounters;
}

/** States that could be read, and those that could not. */
export interface ReadStates {
  readonly states: readonly State[];
  /** Those whose content is wrong, with what is wrong. */
  readonly damaged: ReadonlyMap<string, CorruptStoreError>;
  /** Those taken away since they were listed: whatever replaces them is there by now. */
  readonly missing: readonly { readonly id: string; readonly cause: MissingResourceError }[];
}

/** Reads states and takes them apart. Rejects with what keeps one from being read, such as StoreUnavailableError. */
export async function readStates(
  reader: StateReader,
  ids: readonly string[],
  { progress = silentProgress, ...options }: ReadOptions & { readonly progress?: Progress } = {},
): Promise<ReadStates> {
  const stage = progress.begin('states read', ids.length);
  const damaged = new Map<string, CorruptStoreError>();
  const missing: { id: string; cause: MissingResourceError }[] = [];
  const states = await mapConcurrently(ids, STATES_IN_FLIGHT_MAX, async (id) => {
    try {
      return await readState(reader, id, options);
    } catch (error) {
      if (error instanceof CorruptStoreError) damaged.set(id, error);
      else if (error instanceof MissingResourceError) missing.push({ id, cause: error });
      else throw error;
      return undefined;
    } finally {
      stage.advance();
    }
  }).finally(() => stage.end());
  return { states: states.filter((state) => state !== undefined), damaged, missing };
}

async function readState(reader: StateReader, id: string, options: ReadOptions): Promise<State> {
  const { store, codec, counters } = reader;
  const name = `State ${id}`;
  const resource = await store.readState(id, options);
  counters.storeRequests++;
  counters.storeBytes += resource.byteLength;
  try {
    const envelope = openEnvelope(resource, { type: resourceTypes.state, versionMax: versions.v1_1_0, name });
    checkEnvelope(envelope, codec.mac(envelope.covered), name);
    const plain = codec.decode(envelope.payload, STATE_PLAIN_BYTES_MAX);
    counters.decodedBytes += plain.byteLength;
    return parseState(id, envelope.version, plain);
  } catch (error) {
    const isDamaged =
      error instanceof CorruptStoreError || (error instanceof UnsupportedError && !isWhole(resource, codec));
    if (!isDamaged || error.details.state === id) throw error;
    // The envelope's checks name the state; what the decoder finds wrong does not say where.
    if (!error.message.startsWith(name)) throw damagedState(id, error.message, error);
    throw new CorruptStoreError(error.message, { details: { state: id }, cause: error });
  }
}

/** Whether a resource that claims a version of the future is what its MAC says: else the claim is damage. */
function isWhole(resource: Uint8Array, codec: Codec): boolean {
  return equalBytes(codec.mac(resource.subarray(0, -MAC_BYTES)), resource.subarray(-MAC_BYTES));
}
