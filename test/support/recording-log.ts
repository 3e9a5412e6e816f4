import type { Log } from '../../src/core/log.ts';

export interface RecordedLine {
  readonly level: keyof Log;
  readonly fields: object;
  readonly message: string;
}

/** A log that a test reads. */
export function recordingLog(): { log: Log; lines: RecordedLine[] } {
  const lines: RecordedLine[] = [];
  const keep = (level: keyof Log) => (fields: object, message: string) => void lines.push({ level, fields, message });
  return { log: { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') }, lines };
}
