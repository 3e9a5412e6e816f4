/** `passphrase_cmd` of plakar's configuration. */
import { spawn } from 'node:child_process';
import { exitCodes, UserError } from '../core/errors.ts';
import { KiB } from '../core/units.ts';

/** What such a command may print, bytes: one line. */
const OUTPUT_BYTES_MAX = 64 * KiB;

/**
 * Runs the command in a shell and gives the one line it prints, without its line feed; its standard error and terminal
 * are ours, so that it can ask. Rejects with UserError (77), which quotes neither the command nor its output.
 */
export async function runPassphraseCommand(command: string): Promise<Uint8Array> {
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['inherit', 'pipe', 'inherit'] });
  const pieces: Buffer[] = [];
  let received = 0;
  child.stdout.on('data', (piece: Buffer) => {
    received += piece.byteLength;
    if (received <= OUTPUT_BYTES_MAX) pieces.push(piece);
  });
  const status = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => resolve(`cannot be started (${error.code})`));
    child.once('close', (code, signal) => resolve(code === 0 ? undefined : `ended with ${signal ?? code}`));
  });
  if (status !== undefined) throw failed(status);
  const output = Buffer.concat(pieces);
  const end = output.indexOf(0x0a);
  const line = end === -1 ? output : output.subarray(0, end);
  const isOneLine =
    output.byteLength > 0 && received <= OUTPUT_BYTES_MAX && (end === -1 || end === output.byteLength - 1);
  if (!isOneLine) throw failed('did not print exactly one line');
  // plakar's reader of lines takes a carriage return before the line feed off too.
  return line.at(-1) === 0x0d ? line.subarray(0, -1) : line;
}

function failed(why: string): UserError {
  return new UserError(`The passphrase_cmd of plakar's configuration ${why}.`, { exitCode: exitCodes.passphrase });
}
