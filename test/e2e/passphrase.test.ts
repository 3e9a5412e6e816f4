/** Passphrases from everywhere they may come from, and nowhere they may not be seen. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { builtCli, run, runCli, startServer } from '../support/cli.ts';
import { cleanupAfterEach, storePath, temporaryFolder } from '../support/fixtures.ts';
import { commandPath, requires } from '../support/requires.ts';

const RIGHT = 'fixture passphrase 2';
const WRONG = 'not this passphrase';
const location = storePath('encrypted-scrypt');
const cleanup = cleanupAfterEach();

interface Given {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

function keyfileWith(passphrase: string): string {
  const keyfile = join(temporaryFolder(cleanup), 'key');
  writeFileSync(keyfile, `${passphrase}\n`, { mode: 0o600 });
  return keyfile;
}

/** The store as `@vault` of plakar's configuration. */
function configuredWith(setting: string): Given {
  const XDG_CONFIG_HOME = temporaryFolder(cleanup);
  mkdirSync(join(XDG_CONFIG_HOME, 'plakar'));
  const stores = `version: v1.0.0\nstores:\n  vault:\n    location: ${location}\n    ${setting}\n`;
  writeFileSync(join(XDG_CONFIG_HOME, 'plakar/stores.yml'), stores, { mode: 0o600 });
  return { args: ['--store', '@vault', 'snapshots'], env: { XDG_CONFIG_HOME } };
}

const sources: readonly [string, (passphrase: string) => Given][] = [
  [
    '--keyfile',
    (passphrase) => ({ args: ['snapshots', '--store', location, '--keyfile', keyfileWith(passphrase)], env: {} }),
  ],
  [
    "-keyfile, plakar's form",
    (passphrase) => ({ args: ['-keyfile', keyfileWith(passphrase), 'at', location, 'snapshots'], env: {} }),
  ],
  [
    'PLAKAR_PASSPHRASE',
    (passphrase) => ({ args: ['snapshots', '--store', location], env: { PLAKAR_PASSPHRASE: passphrase } }),
  ],
  ['passphrase of the configuration', (passphrase) => configuredWith(`passphrase: ${passphrase}`)],
  [
    'passphrase_cmd of the configuration',
    (passphrase) => configuredWith(`passphrase_cmd: cat '${keyfileWith(passphrase)}'`),
  ],
];

describe.each(sources)('%s', (_, give) => {
  test('opens the store', async () => {
    const { args, env } = give(RIGHT);
    const { exitCode, stdout, stderr } = await runCli([...args, '--json', '--log-level', 'debug'], { env });
    expect(exitCode, stderr).toBe(0);
    expect(JSON.parse(stdout)).not.toHaveLength(0);
    expect(stdout + stderr).not.toContain(RIGHT);
  });

  test('if it is wrong: 77, one line, and nothing of it', async () => {
    const { args, env } = give(WRONG);
    const { exitCode, stdout, stderr } = await runCli(args, { env });
    expect([exitCode, stdout, stderr]).toEqual([77, '', 'kloset-nbd: The passphrase does not open this store.\n']);
  });
});

test('none at all: 77, one line', async () => {
  const { exitCode, stdout, stderr } = await runCli(['snapshots', '--store', location]);
  expect([exitCode, stdout]).toEqual([77, '']);
  expect(stderr).toMatch(/^kloset-nbd: .*--keyfile.*PLAKAR_PASSPHRASE.*\n$/);
});

/** Types `answer` at the prompt of the program, on a terminal of its own; prints all that this terminal showed. */
const TYPE_AT_PROMPT = `
import os, pty, sys
answer, program = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program[0], program)
shown, isAnswered = b'', False
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        piece = b''
    if not piece:
        break
    shown += piece
    if not isAnswered and b'Passphrase of the store: ' in shown:
        isAnswered = True
        os.write(terminal, answer.encode() + b'\\r')
status = os.waitpid(pid, 0)[1]
os.write(1, shown)
sys.exit(os.waitstatus_to_exitcode(status))
`;

const need = requires('python3');
describe.skipIf(need.missing)(need.title('the prompt on a terminal'), () => {
  const answer = (passphrase: string) => {
    const { PLAKAR_PASSPHRASE: _, ...env } = process.env;
    const program = [process.execPath, builtCli, 'snapshots', '--store', location];
    return run(commandPath('python3'), ['-c', TYPE_AT_PROMPT, passphrase, ...program], { env });
  };

  test('opens the store, and shows nothing that is typed', async () => {
    const { exitCode, stdout } = await answer(RIGHT);
    expect(exitCode, stdout).toBe(0);
    expect(stdout).toContain('Passphrase of the store: ');
    expect(stdout).not.toContain(RIGHT);
  });

  test('if it is wrong: 77', async () => {
    const { exitCode, stdout } = await answer(WRONG);
    expect(exitCode, stdout).toBe(77);
    expect(stdout.replaceAll('\r', '')).toBe(
      'Passphrase of the store: \nkloset-nbd: The passphrase does not open this store.\n',
    );
  });
});

/** A process and all below it. */
function familyOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return [pid, ...(children === '' ? [] : children.split(' ').map(Number)).flatMap(familyOf)];
}

test.each(['--keyfile', 'passphrase_cmd'])(
  'a running server of %s has it in no command line, environment, log or file',
  async (source) => {
    const folder = temporaryFolder(cleanup);
    const configured = configuredWith(`passphrase_cmd: cat '${keyfileWith(RIGHT)}'`);
    const args =
      source === '--keyfile' ? ['--store', location, '--keyfile', keyfileWith(RIGHT)] : ['--store', '@vault'];
    const more = ['--supervise', '--overlay', join(folder, 'overlay'), '--log-level', 'debug', '--cache-dir', folder];
    const server = await startServer(cleanup, ['latest', ...args, ...more], { env: configured.env });
    const family = familyOf(server.pid);
    expect(family.length).toBeGreaterThan(1);
    for (const pid of family)
      for (const file of ['cmdline', 'environ'])
        expect(readFileSync(`/proc/${pid}/${file}`, 'latin1'), file).not.toContain(RIGHT);
    const { exitCode, stdout, stderr } = await server.stop();
    expect(exitCode).toBe(0);
    expect(stdout + stderr).not.toContain(RIGHT);
    const written = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(written).not.toHaveLength(0);
    for (const { parentPath, name } of written)
      expect(readFileSync(join(parentPath, name)).includes(RIGHT), name).toBe(false);
  },
);
