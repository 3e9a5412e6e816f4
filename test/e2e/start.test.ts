/** `npm start`, as on a fresh machine: it builds, serves the fixture and says what to type next. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, expect, test } from 'vitest';
import { describeExport } from '../support/cli-clients.ts';
import { cleanupAfterEach, projectRoot } from '../support/fixtures.ts';
import { commandPath, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();

const need = requires('npm', 'nbdinfo');
describe.skipIf(need.missing)(need.title('npm start'), () => {
  /** Starts it on a free port, in a process group of its own as a terminal would; resolves when the help is out. */
  async function start() {
    const npm = spawn(commandPath('npm'), ['start', '--', '--listen', 'tcp://127.0.0.1:0'], {
      cwd: projectRoot,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const ended = once(npm, 'close');
    cleanup.add(async () => {
      if (npm.exitCode === null && npm.signalCode === null) process.kill(-npm.pid!, 'SIGTERM');
      await ended;
    });
    const errors: string[] = [];
    createInterface({ input: npm.stderr }).on('line', (line) => errors.push(line));
    const lines: string[] = [];
    for await (const line of createInterface({ input: npm.stdout })) {
      lines.push(line);
      if (line.startsWith('Ctrl-C')) break;
    }
    return { group: -npm.pid!, lines, errors, ended };
  }

  test('prints the ready line, then commands with its address, and serves it', async () => {
    const { lines } = await start();
    const ready = lines.findIndex((line) => line.startsWith('ready '));
    const uri = lines[ready]!.slice('ready '.length);
    const commands = lines.slice(ready + 1).join('\n');
    expect(commands).toContain(`nbd-client 127.0.0.1 ${new URL(uri).port} /dev/nbd0`);
    expect(commands).toContain(uri);
    expect(await describeExport(uri)).toMatchObject({ is_read_only: false });
  });

  test('Ctrl-C, which reaches npm and its children alike, ends the server in order', async () => {
    const { group, errors, ended } = await start();
    process.kill(group, 'SIGINT');
    await ended;
    // The report is the last thing an orderly end does: a second signal would have cut it short.
    expect(errors.join('\n')).toMatch(/Clients asked for/);
  });
});
