/** The PostgreSQL servers that are installed, and the one that fits a data directory. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';

/** A directory with PostgreSQL's programs. */
export interface ServerPrograms {
  readonly directory: string;
  /** Major version, such as 15. */
  readonly major: number;
  /** As `postgres --version` has it. */
  readonly version: string;
}

/** Where packages put each major version: Debian and its kin, Red Hat and its kin. */
function packagedDirectories(): string[] {
  const debian = list('/usr/lib/postgresql').map((major) => join('/usr/lib/postgresql', major, 'bin'));
  const redHat = list('/usr')
    .filter((name) => name.startsWith('pgsql-'))
    .map((name) => join('/usr', name, 'bin'));
  return [...debian, ...redHat];
}

function list(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}

/** What lies in `directory`; undefined if that has no PostgreSQL server. */
export function programsIn(directory: string): ServerPrograms | undefined {
  const postgres = join(directory, 'postgres');
  if (!existsSync(postgres)) return undefined;
  const text = execFileSync(postgres, ['--version'], { encoding: 'utf8' }).trim();
  const major = /\(PostgreSQL\) (\d+)/.exec(text)?.[1];
  return major === undefined ? undefined : { directory, major: Number(major), version: text };
}

export function installedPrograms(): ServerPrograms[] {
  const onPath = (process.env.PATH ?? '').split(delimiter).filter((directory) => directory !== '');
  const directories = new Set([...packagedDirectories(), ...onPath]);
  return [...directories].flatMap((directory) => programsIn(directory) ?? []);
}

/**
 * The programs for data of that major version: those in `given` (`--pg-bin`), else installed ones. Throws UserError: data
 * of one major version is not read by another's server.
 */
export function choosePrograms(major: number, given: string | undefined): ServerPrograms {
  if (given !== undefined) {
    const programs = programsIn(given);
    if (programs === undefined) throw new UserError(`--pg-bin ${given}: there is no PostgreSQL server in it.`);
    if (programs.major === major) return programs;
    throw new UserError(
      `The backup is of PostgreSQL ${major}; --pg-bin ${given} has ${programs.version}. Only ${major}.x reads it: name its directory.`,
      { exitCode: exitCodes.version },
    );
  }
  const installed = installedPrograms();
  const fitting = installed.find((programs) => programs.major === major);
  if (fitting !== undefined) return fitting;
  const others = [...new Set(installed.map((programs) => programs.major))].join(', ');
  throw new UserError(
    `The backup is of PostgreSQL ${major}, whose server is not installed here${others === '' ? '' : ` (there is ${others})`}. ` +
      `Install it (Debian: apt-get install postgresql-${major}), or name its directory with --pg-bin DIR.`,
    { exitCode: exitCodes.version },
  );
}
