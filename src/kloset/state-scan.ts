import { CorruptStoreError } from '../core/errors.ts';
import { locationRecord, stateRecords } from './format.ts';
import { fixedBody, RECORD_HEAD_BYTES, type State } from './state.ts';

/** Takes what a state's records say, in their order. */
export interface RecordSink {
  /** A location, padding's too: its MAC lies in `records` at `macAt`, its packfile's at `packfileAt`. */
  location(records: Uint8Array, place: RecordedLocation): void;
  /** Any other record; `body` is a view. */
  other(type: number, body: Uint8Array): void;
}

/** One and the same object for every location of a scan: a state can have tens of millions. */
export interface RecordedLocation {
  type: number;
  macAt: number;
  packfileAt: number;
  offset: number;
  length: number;
}

const TYPE_AT = locationRecord.offsetOf('blobType');
const MAC_AT = locationRecord.offsetOf('blobMac');
const PACKFILE_AT = locationRecord.offsetOf('packfileMac');
const OFFSET_AT = locationRecord.offsetOf('offset');
const LENGTH_AT = locationRecord.offsetOf('length');

/** Hands out a state's records (kloset-format 7.2). Throws CorruptStoreError on those of a wrong length. */
export function scanState(state: State, sink: RecordSink): void {
  const { records } = state;
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  const place: RecordedLocation = { type: 0, macAt: 0, packfileAt: 0, offset: 0, length: 0 };
  for (let at = 0; at < records.byteLength; ) {
    const type = records[at]!;
    const length = view.getUint32(at + 1, true);
    const bodyAt = at + RECORD_HEAD_BYTES;
    at = bodyAt + length;
    if (type !== stateRecords.location) {
      sink.other(type, records.subarray(bodyAt, at));
      continue;
    }
    if (length !== locationRecord.sizeBytes) fixedBody(records.subarray(bodyAt, at), locationRecord.sizeBytes);
    const offsetHigh = view.getUint32(bodyAt + OFFSET_AT + 4, true);
    if (offsetHigh > 0x1fffff) throw new CorruptStoreError('a location lies beyond 2^53 - 1');
    place.type = records[bodyAt + TYPE_AT]!;
    place.macAt = bodyAt + MAC_AT;
    place.packfileAt = bodyAt + PACKFILE_AT;
    place.offset = offsetHigh * 2 ** 32 + view.getUint32(bodyAt + OFFSET_AT, true);
    place.length = view.getUint32(bodyAt + LENGTH_AT, true);
    sink.location(records, place);
  }
}
