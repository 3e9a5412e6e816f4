/** Signals, sent to a process that does what a server does with them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { projectRoot } from '../../support/fixtures.ts';

const program = `
  import { reportOnSignal, runUntilSignal } from './dist/cli/signals.js';
  reportOnSignal(() => console.log('report'));
  const signals = runUntilSignal();
  setInterval(() => {}, 1000);
  console.log('up');
  await signals.stopped;
  console.log('draining');
`;

/** Sends the signals, each when the line before it was printed; gives all output and how the process ended. */
async function run(steps: readonly (readonly [line: string, signal: NodeJS.Signals])[]) {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { cwd: projectRoot });
  const exited = once(child, 'exit');
  let errors = '';
  let output = '';
  let sent = 0;
  child.stderr.on('data', (data: Buffer) => {
    errors += data;
  });
  child.stdout.on('data', (data: Buffer) => {
    output += data;
    for (let next = steps[sent]; next !== undefined && output.includes(next[0]); next = steps[++sent])
      child.kill(next[1]);
  });
  const [code] = await exited;
  return { code, output: output.trim().split('\n'), errors };
}

describe('a server', () => {
  it.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)('that drains without end ends at once at a second %s, with code %i', async (signal, code) => {
    expect(
      await run([
        ['up', signal],
        ['draining', signal],
      ]),
    ).toEqual({ code, output: ['up', 'draining'], errors: '' });
  });

  it('counts the signal that came last', async () => {
    expect(
      (
        await run([
          ['up', 'SIGTERM'],
          ['draining', 'SIGINT'],
        ])
      ).code,
    ).toBe(130);
  });

  it('reports on SIGUSR1, and does not become a debugger', async () => {
    const { output, errors } = await run([
      ['up', 'SIGUSR1'],
      ['report', 'SIGTERM'],
      ['draining', 'SIGTERM'],
    ]);
    expect(output).toEqual(['up', 'report', 'draining']);
    expect(errors).toBe('');
  });
});
