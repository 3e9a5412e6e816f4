/**
 * How plakar is called and what its endings mean. A command line is a list of byte strings, since paths in a snapshot
 * need not be UTF-8; Node encodes every argument as UTF-8, so other paths take a detour over the shell: see catCommand.
 *
 * Secrets: a passphrase goes by environment only. Whatever is quoted from plakar is cut, freed of control characters,
 * and of passphrases and the user part of URLs.
 */
import { isUtf8 } from 'node:buffer';
import { type PlakarOptions, STDERR_BYTES_MAX } from './plakar-cat-options.ts';

export interface CommandLine {
  readonly file: string;
  readonly args: readonly string[];
}

/** One file for `cat`: `SNAPSHOT:/PATH`. It begins with a hex digit, so no path can pass for an option. */
export interface CatOperand {
  readonly snapshotId: string;
  readonly path: Uint8Array;
}

/**
 * `plakar … at LOCATION cat ID:PATH…`. `-quiet`, as plakar's information lines go to standard output, into the data.
 *
 * A path that is not UTF-8 cannot be an argument of a Node child process. A shell can make it: printf turns octal
 * digits into bytes, and `exec` replaces the shell by plakar, so that signals and exit codes are plakar's. The trailing
 * `/` keeps line feeds at the end of a name, which `$(…)` would strip, and is taken off again; no multibyte encoding
 * has it as part of another character.
 */
export function catCommand(plakar: PlakarOptions, operands: readonly CatOperand[]): CommandLine {
  const options = [...globalOptions(plakar), '-quiet', 'at', plakar.location, 'cat'];
  if (operands.every(({ path }) => isUtf8(path))) {
    const words = operands.map(({ snapshotId, path }) => `${snapshotId}:${Buffer.from(path).toString()}`);
    return { file: plakar.command, args: [...options, ...words] };
  }
  const additions = operands.map(({ snapshotId, path }) => {
    const octal = [...Buffer.from(`${snapshotId}:`), ...path].map((byte) => `\\0${byte.toString(8).padStart(3, '0')}`);
    return `o=$(printf %b '${octal.join('')}/'); set -- "$@" "\${o%/}"`;
  });
  return { file: '/bin/sh', args: ['-c', [...additions, 'exec "$0" "$@"'].join('\n'), plakar.command, ...options] };
}

/** Options that come before `at` and before any command. */
export function globalOptions({ cacheDir, keyfile }: Pick<PlakarOptions, 'cacheDir' | 'keyfile'>): string[] {
  return [
    ...(cacheDir === undefined ? [] : ['-cachedir', cacheDir]),
    ...(keyfile === undefined ? [] : ['-keyfile', keyfile]),
  ];
}

/** Why a child gave nothing, and whether that says something about the whole store. */
export interface Ending {
  /** A clause for the end of a sentence, with the next step. */
  readonly reason: string;
  /** The same would happen with any other file. */
  readonly storeWide: boolean;
}

/** Error of `spawn` itself. */
export function explainSpawnError(error: NodeJS.ErrnoException, { command }: PlakarOptions): Ending {
  switch (error.code) {
    case 'ENOENT':
      return { reason: `there is no program "${command}": ${installHint}`, storeWide: true };
    case 'EACCES':
      return { reason: `"${command}" may not be executed: ${executableHint}`, storeWide: true };
    default:
      return { reason: `"${command}" could not be started (${error.code ?? error.message})`, storeWide: true };
  }
}

const installHint = 'install plakar, or say where it is with --plakar PATH';
const executableHint = 'make it executable, or name another one with --plakar PATH';

/** What exit codes say about the whole store (format notes, section 16.1; 126 and 127 are the shell's, of `exec`). */
const storeWideExits: Readonly<Record<number, string>> = {
  2: 'it does not know an option we gave it: another version of plakar may help',
  66: 'it cannot open the store: check its location and that it can be reached',
  77: 'wrong or missing passphrase: give the right one, or a key file',
  78: 'the store was made by another version of plakar: use one that matches',
  126: executableHint,
  127: installHint,
};

/** An end other than exit code 0. */
export function explainExit(code: number | null, signal: NodeJS.Signals | null): Ending {
  if (code === null) return { reason: `it was ended by ${signal ?? 'a signal'}`, storeWide: false };
  const known = storeWideExits[code];
  return { reason: known ?? `it ended with exit code ${code}`, storeWide: known !== undefined };
}

/** Collects the beginning of a stream's text and drops the rest, so that its writer never blocks. */
export class TextHead {
  #bytes = Buffer.alloc(0);

  add(piece: Uint8Array): void {
    const room = STDERR_BYTES_MAX - this.#bytes.byteLength;
    if (room > 0) this.#bytes = Buffer.concat([this.#bytes, piece.subarray(0, room)]);
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }
}

const QUOTED_LINES_MAX = 3;
const QUOTED_CHARACTERS_MAX = 300;

/** The first lines of what plakar said, fit for a one-line message; empty if it said nothing. */
export function quote(text: Uint8Array, { passphrase }: PlakarOptions): string {
  const lines = Buffer.from(text)
    .toString()
    .split('\n')
    .map((line) => line.replace(/\p{Cc}+/gu, ' ').trim())
    .filter((line) => line !== '')
    .slice(0, QUOTED_LINES_MAX);
  let quoted = lines.join(' / ');
  if (passphrase) quoted = quoted.replaceAll(passphrase, '***');
  quoted = hideCredentials(quoted);
  return quoted.length > QUOTED_CHARACTERS_MAX ? `${quoted.slice(0, QUOTED_CHARACTERS_MAX)}…` : quoted;
}

/** `sftp://user:secret@host` loses what stands before the `@`. */
function hideCredentials(text: string): string {
  return text.replace(/:\/\/[^/\s@]*@/g, '://***@');
}

const ownTexts = /^(Welcome to plakar|plakar: |info: |warn: |error: |trace: |security check )/;

/**
 * plakar's own text among the data, whose place is standard error: at the beginning of `output`, or as its last line.
 * Only lines that look like plakar's are returned: anything else is the content of somebody's file.
 */
export function ownTextIn(output: Uint8Array): Uint8Array {
  const text = Buffer.from(output.buffer, output.byteOffset, output.byteLength);
  const head = text.subarray(0, STDERR_BYTES_MAX).toString('latin1');
  if (ownTexts.test(head)) return Buffer.from(head.slice(0, head.indexOf('\n') + 1 || head.length), 'latin1');
  const tail = text.subarray(-STDERR_BYTES_MAX).toString('latin1');
  const lastLine = /plakar: [^\n]*\n?$/.exec(tail);
  return Buffer.from(lastLine?.[0] ?? '', 'latin1');
}

/** plakar's words as the end of a clause. */
export function words(quoted: string): string {
  return quoted === '' ? '' : ` - plakar says: "${quoted}"`;
}
