/**
 * What is attached on this host: one directory each, with a record that says what it is and who keeps it. It is how one
 * command takes down what another set up, and how what a killed one left is found.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UserError } from '../core/errors.ts';
import type { AttachMethod } from './disk.ts';

export interface SessionRecord {
  readonly kind: 'pg' | 'attach' | 'serve';
  /** The process that the session lives by: this program for `pg` and `serve`, nbdfuse or nbd-client for `attach`. */
  readonly pid: number;
  /** When that process started, clock ticks since boot: another one may get the number. */
  readonly pidStart: number;
  readonly export: string;
  readonly uri: string;
  readonly snapshot?: string | undefined;
  readonly clone?: string | undefined;
  readonly readOnly: boolean;
  readonly method?: AttachMethod | undefined;
  readonly device?: string | undefined;
  readonly mountPoint?: string | undefined;
  /** Directory of its memory groups. */
  readonly memoryGroups?: string | undefined;
  /** The container that its PostgreSQL runs in. */
  readonly container?: string | undefined;
  /** Where clients of its PostgreSQL connect. */
  readonly host?: string | undefined;
  readonly port?: number | undefined;
}

export interface Session {
  readonly directory: string;
  readonly record: SessionRecord;
  /** Its process lives. */
  readonly isAlive: boolean;
}

const RECORD = 'session.json';

/** A session's directory: its maker's process, when that started, both to base 36, and a random number. */
const NAME = /^([0-9a-z]+)-([0-9a-z]+)-[0-9a-f]{4}$/;
const NAME_RADIX = 36;

/** KLOSET_NBD_RUN_DIR, else /run/kloset-nbd for root, one of the user's own for others. */
export function sessionsDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  if (environment.KLOSET_NBD_RUN_DIR) return environment.KLOSET_NBD_RUN_DIR;
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return '/run/kloset-nbd';
  const runtime = environment.XDG_RUNTIME_DIR;
  if (runtime !== undefined && existsSync(runtime)) return join(runtime, 'kloset-nbd');
  return join(tmpdir(), `kloset-nbd-${uid}`);
}

/** Makes the directory of sessions if it is not there. Rejects with UserError for one that others could write to. */
export async function makeSessionsDirectory(base = sessionsDirectory()): Promise<string> {
  await mkdir(base, { recursive: true, mode: 0o711 });
  const { uid, mode } = await lstat(base);
  if (uid !== (process.getuid?.() ?? 0) || (mode & 0o022) !== 0) {
    throw new UserError(`${base} belongs to somebody else, or others may write to it: remove it.`);
  }
  return base;
}

/** Makes a session's directory. Others may pass through it, to a socket that has its own rights; only its owner lists it. */
export async function createSession(base = sessionsDirectory()): Promise<string> {
  await makeSessionsDirectory(base);
  // Short: the path of a Unix socket below it has 107 bytes at most.
  const maker = [process.pid, startOf(process.pid) ?? 0].map((number) => number.toString(NAME_RADIX));
  const directory = join(base, [...maker, randomBytes(2).toString('hex')].join('-'));
  await mkdir(directory, { mode: 0o711 });
  await chmod(directory, 0o711);
  return directory;
}

export async function writeRecord(directory: string, record: SessionRecord): Promise<void> {
  const temporary = join(directory, `${RECORD}.new`);
  await writeFile(temporary, `${JSON.stringify(record)}\n`, { mode: 0o600 });
  await rename(temporary, join(directory, RECORD));
}

/** All sessions with a record, the dead ones included. */
export async function listSessions(base = sessionsDirectory()): Promise<Session[]> {
  const names = await readdir(base).catch((error) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  });
  const sessions = await Promise.all(names.map((name) => readSession(join(base, name))));
  return sessions.filter((session) => session !== undefined);
}

/** Undefined if it has no record. */
export async function readSession(directory: string): Promise<Session | undefined> {
  const text = await readFile(join(directory, RECORD), 'utf8').catch(() => undefined);
  // Being made, or being removed; `cleanup` looks at those itself.
  if (text === undefined) return undefined;
  const record = JSON.parse(text) as SessionRecord;
  return { directory, record, isAlive: startOf(record.pid) === record.pidStart };
}

/** Directories below `base` that no living process keeps: killed ones', and those whose maker never gave them a record. */
export async function listLeftOvers(
  base = sessionsDirectory(),
): Promise<{ directory: string; record?: SessionRecord }[]> {
  const names = await readdir(base).catch(() => []);
  const found: { directory: string; record?: SessionRecord }[] = [];
  for (const name of names) {
    const [, pid, start] = NAME.exec(name) ?? [];
    if (pid === undefined) continue;
    const directory = join(base, name);
    const session = await readSession(directory);
    if (session === undefined) {
      const lives = startOf(Number.parseInt(pid, NAME_RADIX)) === Number.parseInt(start!, NAME_RADIX);
      if (!lives) found.push({ directory });
    } else if (!session.isAlive) {
      found.push({ directory, record: session.record });
    }
  }
  return found;
}

export async function removeSession(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
}

/** When a process started, clock ticks since boot; undefined if there is none. Source: proc(5), /proc/PID/stat, field 22. */
export function startOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : Number(fields[19]);
  } catch {
    // No such process.
    return undefined;
  }
}
