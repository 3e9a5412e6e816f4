/** Command lines, brought from plakar's habits to one form before yargs reads them. */
import { UserError } from '../core/errors.ts';
import { formatBytes, parseBytes } from '../core/units.ts';
import type { FreeSpace } from '../ext4/parameters.ts';
import type { ListenAddress } from '../nbd/listener.ts';
import type { LogLevel } from '../observability/log.ts';
import type { CacheArguments } from './cache-options.ts';

/** Options of every command. */
export interface GlobalArguments extends CacheArguments {
  /** Undefined: plakar's default. */
  readonly store: string | undefined;
  readonly keyfile: string | undefined;
  readonly fetchTimeout: string;
  readonly fetchConcurrency: string;
  readonly ignoreDamagedStates: boolean;
  /** The plakar program. */
  readonly plakar: string;
  readonly throughPlakar: boolean;
  readonly allowOpenLoopback: boolean;
  readonly logLevel: LogLevel;
}

/** plakar's global options that take a value: skipped when its `at` is looked for. */
const GLOBAL_WITH_VALUE = [
  '--keyfile',
  '--store',
  '--log-level',
  '--cache-dir',
  '--cache-disk',
  '--fetch-timeout',
  '--fetch-concurrency',
  '--plakar',
];

/**
 * `-keyfile F` becomes `--keyfile F`, and `at LOCATION serve` becomes `serve --store LOCATION`. What follows `--` is
 * left alone.
 */
export function normaliseArguments(given: readonly string[]): string[] {
  const end = given.includes('--') ? given.indexOf('--') : given.length;
  const own = given.slice(0, end).map((word) => (/^-[a-z][a-z-]+(=|$)/.test(word) ? `-${word}` : word));
  const at = findAt(own);
  if (at === undefined) return [...own, ...given.slice(end)];
  const location = own[at + 1];
  if (location === undefined) throw new UserError('"at" needs a LOCATION: kloset-nbd at LOCATION serve');
  return [...own.slice(0, at), ...own.slice(at + 2), '--store', location, ...given.slice(end)];
}

/** Index of plakar's `at`: the first word that is neither an option nor an option's value. */
function findAt(words: readonly string[]): number | undefined {
  let index = 0;
  while (words[index]?.startsWith('-')) index += GLOBAL_WITH_VALUE.includes(words[index]!) ? 2 : 1;
  return words[index] === 'at' ? index : undefined;
}

/** An option's size, such as `10G`; powers of 1024. Throws UserError. */
export function sizeOption(name: string, text: string): number {
  const bytes = parseBytes(text);
  if (bytes === undefined)
    throw new UserError(`--${name} ${text}: write a size such as 512M, 10G or a number of bytes.`);
  return bytes;
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** Longer timers do not exist, milliseconds. Source: setTimeout of Node. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Milliseconds of `90s`, `5m`, `1h`, `7d`, `250ms` or a number of seconds. Throws UserError. */
export function durationOption(name: string, text: string): number {
  const [, number, unit = 's'] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim()) ?? [];
  if (number === undefined) throw new UserError(`--${name} ${text}: write a time such as 90s, 5m, 1h or 7d.`);
  return Number(number) * UNIT_MS[unit]!;
}

/** A duration that a timer can wait for. Throws UserError. */
export function timerOption(name: string, text: string): number {
  const ms = durationOption(name, text);
  if (ms > TIMER_MS_MAX) throw new UserError(`--${name} ${text}: write 24 days at most.`);
  return ms;
}

/** A whole number within bounds. Throws UserError. */
export function countOption(name: string, text: string, { min, max }: { min: number; max: number }): number {
  const count = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(count >= min && count <= max)) throw new UserError(`--${name} ${text}: write a number from ${min} to ${max}.`);
  return count;
}

/** A default as an option's value would be written. */
export function defaultSize(bytes: number): string {
  return formatBytes(bytes).replace(/\.0 | |iB/g, '');
}

/** `--free`: `25%` of what is used, or a size. */
export function freeOption(text: string): FreeSpace {
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text)?.[1];
  if (percent !== undefined) return { percent: Number(percent) };
  const bytes = parseBytes(text);
  if (bytes === undefined) throw new UserError(`--free ${text}: write a share such as 25% or a size such as 5G.`);
  return { bytes };
}

/** `tcp://HOST:PORT` or `unix:PATH`. Throws UserError. */
export function listenOption(text: string): ListenAddress {
  if (text.startsWith('unix:') && text.length > 'unix:'.length) {
    const path = text.slice('unix:'.length);
    return { path };
  }
  const address = hostAndPort(/^tcp:\/\/(.+?)\/?$/.exec(text)?.[1] ?? '');
  if (address === undefined) {
    throw new UserError(`--listen ${text}: write tcp://127.0.0.1:10809 or unix:/run/kloset-nbd.sock.`);
  }
  return address;
}

/** `--metrics`: `HOST:PORT`, or `PORT` of this machine alone. Throws UserError. */
export function metricsOption(text: string): { host: string; port: number } {
  const address = hostAndPort(/^\d+$/.test(text) ? `127.0.0.1:${text}` : text);
  if (address === undefined) throw new UserError(`--metrics ${text}: write an address such as 127.0.0.1:9809.`);
  return address;
}

/** `HOST:PORT` or `[IPv6]:PORT`; undefined for anything else. */
function hostAndPort(text: string): { host: string; port: number } | undefined {
  const [, host, digits] = /^(\[[0-9a-fA-F:.]+\]|[^:/]+):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (host === undefined || port > 65535) return undefined;
  return { host: host.replace(/^\[|\]$/g, ''), port };
}
