import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keySource } from '../../../src/cli/passphrase.ts';
import { askPassphrase } from '../../../src/cli/prompt.ts';

const folder = mkdtempSync(join(tmpdir(), 'kloset-nbd-'));
const keyfile = join(folder, 'key');
let inherited: string | undefined;
beforeEach(() => {
  inherited = process.env.PLAKAR_PASSPHRASE;
});
afterEach(() => {
  if (inherited === undefined) delete process.env.PLAKAR_PASSPHRASE;
  else process.env.PLAKAR_PASSPHRASE = inherited;
  rmSync(keyfile, { force: true });
});

async function find(sources: Parameters<typeof keySource>[0]): Promise<string> {
  return Buffer.from(await keySource(sources).passphrase()).toString();
}

describe('the passphrase', () => {
  it('comes from the key file first, one line feed at its end taken off', async () => {
    writeFileSync(keyfile, 'from file\n\n');
    process.env.PLAKAR_PASSPHRASE = 'from environment';
    expect(await find({ keyfile, configured: { passphrase: 'configured' } })).toBe('from file\n');
  });

  it("then from plakar's configuration: the passphrase, or the command that prints it", async () => {
    process.env.PLAKAR_PASSPHRASE = 'from environment';
    expect(await find({ keyfile: undefined, configured: { passphrase: 'configured' } })).toBe('configured');
    expect(await find({ keyfile: undefined, configured: { passphraseCommand: 'echo printed' } })).toBe('printed');
  });

  it('then from the environment, byte for byte', async () => {
    process.env.PLAKAR_PASSPHRASE = ' spaces stay \n';
    expect(await find({ keyfile: undefined, configured: {} })).toBe(' spaces stay \n');
  });

  it('and without any of them, and no terminal, ends with 77', async () => {
    delete process.env.PLAKAR_PASSPHRASE;
    await expect(find({ keyfile: undefined, configured: {} })).rejects.toMatchObject({ exitCode: 77 });
    await expect(find({ keyfile: join(folder, 'none'), configured: {} })).rejects.toMatchObject({ exitCode: 77 });
  });
});

describe('the prompt', () => {
  /** A terminal on which these pieces are typed; notes when raw mode is switched. */
  function typed(...pieces: string[]) {
    const modes: boolean[] = [];
    let shown = '';
    const terminal = {
      setRawMode(isRaw: boolean) {
        modes.push(isRaw);
        return terminal as never;
      },
      pause: () => terminal as never,
      async *[Symbol.asyncIterator]() {
        for (const piece of pieces) yield Buffer.from(piece);
      },
    };
    const screen = {
      write: (text: string | Uint8Array) => {
        shown += `${modes.at(-1) ? 'raw: ' : ''}${text}`;
        return true;
      },
    };
    return { answer: askPassphrase(terminal, screen), modes, shown: () => shown };
  }

  it('takes a line, backspace over a whole character included, and echoes nothing of it', async () => {
    const { answer, modes, shown } = typed('secrX', '\x7f', 'eté', '\x7f', '!\r');
    expect(Buffer.from(await answer).toString()).toBe('secret!');
    expect(modes).toEqual([true, false]);
    expect(shown()).toBe('raw: Passphrase of the store: \n');
  });

  it('gives the terminal back when it is interrupted, ends, or nothing is typed', async () => {
    for (const pieces of [['abc\x03'], ['abc'], ['\r']]) {
      const { answer, modes } = typed(...pieces);
      await expect(answer).rejects.toMatchObject({ exitCode: 77 });
      expect(modes).toEqual([true, false]);
    }
  });
});
