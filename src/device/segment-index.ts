/** The end of a complete segment: INDEX and END (log-format.ts). */
import { finishRecord, INDEX_ENTRY_BYTES, newRecord, type RecordValues, recordKinds } from './log-format.ts';
import type { Segment } from './log-index.ts';
import { indexTable } from './log-tables.ts';

/** Both records, to be written one behind the other at `values.position`. The segment still has its `entries`. */
export function indexRecords(
  values: Pick<RecordValues, 'overlayId' | 'segment' | 'position' | 'sequence' | 'synced'>,
  segment: Segment,
): Buffer[] {
  const entries = segment.entries!.view();
  const indexValues = {
    ...values,
    kind: recordKinds.INDEX,
    detail: segment.checksums.length,
    entryCount: entries.length / (INDEX_ENTRY_BYTES / 4),
  };
  const index = finishRecord(indexTable(entries, segment.checksums.view()), indexValues, segment.cipher);
  const endValues = {
    ...values,
    kind: recordKinds.END,
    position: values.position + index.length,
    detail: values.position,
    entryCount: 0,
  };
  const end = finishRecord(newRecord(0), endValues, segment.cipher);
  return [index, end];
}
