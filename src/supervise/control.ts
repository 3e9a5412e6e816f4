/**
 * What supervisor and worker say to each other besides NBD, over the IPC channel that Node gives a child process. The
 * worker's side: it answers which device a name means, asks for the passphrase, and it ends when the channel does, which is
 * when the supervisor has ended, however that happened.
 *
 * It ends as if killed: what was acknowledged is in the overlay's log, and the lock must be free for who comes next.
 */
import { rmSync } from 'node:fs';
import { UserError } from '../core/errors.ts';
import type { ExportCatalog } from '../core/export-catalog.ts';

/** In the environment of a worker: the private folder of its supervisor. */
export const WORKER_VARIABLE = 'KLOSET_NBD_SUPERVISED';

/** A device, whatever name it was asked for by. */
export interface DeviceIdentity {
  readonly deviceId: string;
  /** The name that stands for it in messages. */
  readonly name: string;
  readonly readOnly: boolean;
}

/** The supervisor's first message: to begin. */
export interface Begin {
  readonly begin: true;
}

/** From a worker that opens an encrypted store: only the supervisor has a terminal, and reads a key file once. */
export interface PassphraseWanted {
  readonly wants: 'passphrase';
}

/** What the supervisor says to that. */
export type PassphraseAnswer =
  /** Base 64. */
  { readonly passphrase: string } | { readonly noPassphrase: string; readonly exitCode: number };

export interface Question {
  readonly id: number;
  readonly exportName: string;
}

export interface Answer {
  readonly id: number;
  /** Undefined: there is no such export, or it cannot be opened; a client that asks hears why. */
  readonly device?: DeviceIdentity;
}

/**
 * Whether this process is a supervisor's worker; from then on it ends with its supervisor. Resolves when it is to begin:
 * a worker is started ahead of need, since loading the program takes longer than opening the store. To be called before
 * anything is opened.
 */
export async function becomeWorker(): Promise<boolean> {
  const folder = process.env[WORKER_VARIABLE];
  if (folder === undefined || process.send === undefined) return false;
  delete process.env[WORKER_VARIABLE];
  process.on('disconnect', () => {
    try {
      rmSync(folder, { recursive: true, force: true });
    } finally {
      process.kill(process.pid, 'SIGKILL');
    }
  });
  await new Promise<void>((resolve) => process.once('message', () => resolve()));
  // Until here it was what kept the process going; from now on it must not.
  process.channel?.unref();
  return true;
}

/** The store's passphrase, as the supervisor has found it. Rejects with its UserError. */
export async function passphraseFromSupervisor(): Promise<Uint8Array> {
  const wanted: PassphraseWanted = { wants: 'passphrase' };
  process.channel?.ref();
  process.send?.(wanted);
  const answer = await new Promise<PassphraseAnswer>((resolve) => process.once('message', resolve));
  process.channel?.unref();
  if ('passphrase' in answer) return Buffer.from(answer.passphrase, 'base64');
  throw new UserError(answer.noPassphrase, { exitCode: answer.exitCode });
}

/** Answers the supervisor's questions about the catalog's exports. */
export function answerSupervisor(catalog: ExportCatalog): void {
  process.on('message', (question: Question) => {
    identify(catalog, question.exportName)
      .catch(() => undefined) // The client asks for the same export next, and is told.
      .then((device) => {
        const answer: Answer = { id: question.id, ...(device && { device }) };
        process.send?.(answer);
      });
  });
  process.channel?.unref();
}

async function identify(catalog: ExportCatalog, exportName: string): Promise<DeviceIdentity | undefined> {
  const lease = await catalog.acquire(exportName);
  if (lease === undefined) return undefined;
  const { deviceId, name, readOnly } = lease;
  lease.release();
  return { deviceId, name, readOnly };
}
