/** Running servers among the sessions of this machine, with a socket by which commands such as `top` ask them. */
import { join } from 'node:path';
import {
  createSession,
  listLeftOvers,
  listSessions,
  removeSession,
  type Session,
  type SessionRecord,
  startOf,
  writeRecord,
} from '../attach/sessions.ts';
import { ControlClient } from '../control/control-client.ts';
import { type ControlCommand, ControlServer } from '../control/control-server.ts';
import { KlosetNbdError, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';

/** The control socket in a session's directory. */
const SOCKET = 'control';

export interface SessionControl {
  readonly commands: Readonly<Record<string, ControlCommand>>;
  readonly log: Log;
  readonly onBug: (error: unknown) => void;
}

export interface SessionOptions extends SessionControl {
  /** Where clients connect. */
  readonly uri: string;
  readonly readOnly: boolean;
}

/** Lets commands ask the session of that directory. Resolves to what ends it. */
export async function openSessionControl(directory: string, options: SessionControl): Promise<() => Promise<void>> {
  const control = await ControlServer.listen({ ...options, path: join(directory, SOCKET) });
  return () => control.close();
}

/**
 * Resolves to what ends it. Where no session can be made, a server serves all the same: that is logged, and nobody can
 * ask it.
 */
export async function openServerSession(options: SessionOptions): Promise<() => Promise<void>> {
  let directory: string | undefined;
  try {
    // What servers that were killed left, workers of --supervise among them, holds nothing but a record and a dead socket.
    for (const { directory: left, record } of await listLeftOvers()) {
      if (record?.kind === 'serve') await removeSession(left);
    }
    const made = await createSession();
    directory = made;
    const { uri, readOnly } = options;
    const close = await openSessionControl(made, options);
    const { pid } = process;
    await writeRecord(made, { kind: 'serve', pid, pidStart: startOf(pid) ?? 0, export: '', uri, readOnly });
    return async () => {
      await close();
      await removeSession(made);
    };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!(error instanceof KlosetNbdError) && code === undefined) throw error;
    if (directory !== undefined) await removeSession(directory).catch(() => undefined);
    options.log.warn(
      { error: (error as Error).message },
      `"kloset-nbd top" cannot ask this server: ${(error as Error).message}`,
    );
    return async () => undefined;
  }
}

/**
 * Connects to the running server of that process; without one, to the only one there is, those of `kinds`. Rejects with
 * UserError.
 */
export async function connectServer(
  pid: number | undefined,
  kinds: readonly SessionRecord['kind'][],
): Promise<ControlClient> {
  const running = (await listSessions()).filter(({ record, isAlive }) => kinds.includes(record.kind) && isAlive);
  const wanted = pid === undefined ? running : running.filter(({ record }) => record.pid === pid);
  const [first, second] = wanted;
  if (first === undefined) {
    const which = pid === undefined ? 'No server runs here' : `No server with the process id ${pid} runs here`;
    throw new UserError(`${which}${describe(running)}: start one with "kloset-nbd serve", as the same user.`);
  }
  if (second !== undefined) throw new UserError(`Several servers run here${describe(running)}: name one with --pid.`);
  const client = await ControlClient.connect(join(first.directory, SOCKET));
  if (client === undefined) throw new UserError(`The server (process ${first.record.pid}) is just starting or ending.`);
  return client;
}

function describe(running: readonly Session[]): string {
  return running.length === 0
    ? ''
    : ` (${running.map(({ record }) => `${record.pid}: ${record.kind} ${record.kind === 'pg' ? record.export : record.uri}`).join(', ')})`;
}
