import { createRequire } from 'node:module';
import pino from 'pino';
import type { Log } from '../core/log.ts';

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/**
 * The program's log, on standard error: lines for people on a terminal, JSON otherwise. Written synchronously, so that
 * the last line before an exit is not lost.
 */
export function createLog(level: LogLevel): Log {
  const target = process.stderr.isTTY ? terminal() : pino.destination({ dest: 2, sync: true });
  return pino({ level, base: null, serializers: { err: pino.stdSerializers.errWithCause } }, target);
}

/** Loaded only where somebody looks: it takes a start some 40 ms. */
function terminal(): pino.DestinationStream {
  const pretty = createRequire(import.meta.url)('pino-pretty') as typeof import('pino-pretty');
  return pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l', singleLine: true });
}
