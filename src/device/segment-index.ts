/** The end of a complete segment: INDEX and END (log-format.ts). */
import { INDEX_ENTRY_BYTES, newRecord, type RecordValues, recordKinds, sealRecord } from './log-format.ts';
import type { Segment } from './log-index.ts';
import { indexTable } from './log-tables.ts';

/** Both records, to be written one behind the other at `values.position`. The segment still has its `entries`. */
export function indexRecords(
  values: Pick<RecordValues, 'overlayId' | 'segment' | 'position' | 'sequence' | 'synced'>,
  segment: Segment,
): Buffer[] {
  const entries = segment.entries!.view();
  const index = sealRecord(indexTable(entries, segment.checksums.view()), {
    ...values,
    kind: recordKinds.INDEX,
    detail: segment.checksums.length,
    entryCount: entries.length / (INDEX_ENTRY_BYTES / 4),
  });
  const end = sealRecord(newRecord(0), {
    ...values,
    kind: recordKinds.END,
    position: values.position + index.length,
    detail: values.position,
    entryCount: 0,
  });
  return [index, end];
}
