import type { ReadStream } from 'node:tty';
import { exitCodes, UserError } from '../core/errors.ts';

/** What a terminal in raw mode sends for keys that end or change a line. */
const keys = { interrupt: 0x03, endOfFile: 0x04, backspace: 0x08, lineFeed: 0x0a, carriageReturn: 0x0d, delete: 0x7f };

/** Longer than any passphrase that people type; keeps a file that is pasted from being collected. */
const PASSPHRASE_BYTES_MAX = 4096;

/** Asks for the passphrase without echo. Rejects with UserError (exit 77) if it is interrupted or empty. */
export async function askPassphrase(
  terminal: Pick<ReadStream, 'setRawMode' | 'pause' | typeof Symbol.asyncIterator>,
  screen: Pick<NodeJS.WritableStream, 'write'>,
): Promise<Uint8Array> {
  // Before the question: whoever answers at once is not to see the answer either.
  terminal.setRawMode(true);
  try {
    screen.write('Passphrase of the store: ');
    return await readLine(terminal);
  } finally {
    terminal.setRawMode(false);
    terminal.pause();
    screen.write('\n');
  }
}

async function readLine(terminal: AsyncIterable<Buffer>): Promise<Uint8Array> {
  let typed = Buffer.alloc(0);
  for await (const data of terminal) {
    for (const byte of data) {
      switch (byte) {
        case keys.interrupt:
        case keys.endOfFile:
          throw noPassphrase();
        case keys.carriageReturn:
        case keys.lineFeed:
          if (typed.byteLength === 0) throw noPassphrase();
          return typed;
        case keys.backspace:
        case keys.delete:
          typed = withoutLastCharacter(typed);
          break;
        default:
          if (typed.byteLength === PASSPHRASE_BYTES_MAX) throw noPassphrase();
          typed = Buffer.concat([typed, Buffer.of(byte)]);
      }
    }
  }
  throw noPassphrase();
}

/** UTF-8: a character ends with the byte that is not a continuation of one before it. */
function withoutLastCharacter(typed: Buffer): Buffer<ArrayBuffer> {
  return Buffer.from([...typed.toString()].slice(0, -1).join(''));
}

function noPassphrase(): UserError {
  return new UserError('No passphrase was given.', { exitCode: exitCodes.passphrase });
}
