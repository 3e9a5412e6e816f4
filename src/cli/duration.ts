import { UserError } from '../core/errors.ts';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** An option's duration such as `90s`, `15m`, `7d`, in milliseconds. Throws UserError. */
export function durationOption(name: string, text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  if (number === undefined) throw new UserError(`--${name} ${text}: write a duration such as 90s, 15m or 7d.`);
  return Number(number) * UNIT_MS[unit!]!;
}
