/** Where in the WAL recovery begins: backup_label says it, and of a server that was stopped pg_control does. */
import { struct, u32 } from '../core/struct.ts';
import { startOffset, startSegment } from '../postgres/backup-label.ts';

export interface WalStart {
  /** Name of a file in pg_wal. */
  readonly segment: string;
  /** Bytes from its beginning. */
  readonly offset: number;
}

/**
 * The head of pg_control, which every version since 12 has the same (pg_control.h, ControlFileData), on little-endian
 * machines. Nothing but a guess what to fetch depends on it.
 */
const controlHead = struct('pg_control', 'le', 52, [
  ['redoLow', u32, { at: 40 }],
  ['redoHigh', u32],
  ['timeline', u32],
]);

/** From backup_label; undefined if it does not say. */
export function walStartOfLabel(label: string, segmentBytes: number): WalStart | undefined {
  const segment = startSegment(label);
  const offset = startOffset(label);
  return segment === undefined || offset === undefined ? undefined : { segment, offset: offset % segmentBytes };
}

/** From pg_control's beginning; undefined if there is too little of it. */
export function walStartOfControl(control: Uint8Array, segmentBytes: number): WalStart | undefined {
  if (control.byteLength < controlHead.sizeBytes || segmentBytes === 0) return undefined;
  const { redoLow, redoHigh, timeline } = controlHead.read(control);
  const parts = [timeline, redoHigh, Math.floor(redoLow / segmentBytes)];
  const segment = parts.map((part) => part.toString(16).toUpperCase().padStart(8, '0')).join('');
  return { segment, offset: redoLow % segmentBytes };
}
