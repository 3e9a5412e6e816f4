import pino from 'pino';
import pretty from 'pino-pretty';
import type { Log } from '../core/log.ts';

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/**
 * The program's log, on standard error: lines for people on a terminal, JSON otherwise. Written synchronously, so that
 * the last line before an exit is not lost.
 */
export function createLog(level: LogLevel): Log {
  const standardError = { dest: 2, sync: true };
  const target = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l', singleLine: true })
    : pino.destination(standardError);
  return pino({ level, base: null, serializers: { err: pino.stdSerializers.errWithCause } }, target);
}
