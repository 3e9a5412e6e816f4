import { describe, expect, it } from 'vitest';
import { progressTo } from '../../../src/cli/progress.ts';

/** An output with a clock that is set, and a timer that is called by hand. */
function fakeOutput(isTerminal: boolean) {
  const output = {
    isTerminal,
    nowMs: 0,
    written: [] as string[],
    lines: [] as string[],
    timers: new Set<() => void>(),
    write: (text: string) => void output.written.push(text),
    line: (text: string) => void output.lines.push(text),
    now: () => output.nowMs,
    repeat(_ms: number, callback: () => void) {
      output.timers.add(callback);
      return () => void output.timers.delete(callback);
    },
    pass(ms: number) {
      output.nowMs += ms;
      for (const callback of output.timers) callback();
    },
  };
  return output;
}

describe('progress', () => {
  it.each([true, false])('says nothing of what takes less than a second (terminal: %s)', (isTerminal) => {
    const output = fakeOutput(isTerminal);
    const stage = progressTo(output).begin('states read', 2);
    stage.advance();
    output.pass(999);
    stage.end();
    output.pass(5000);
    expect([...output.written, ...output.lines]).toEqual([]);
    expect(output.timers.size).toBe(0);
  });

  it('draws a bar with an estimate on a terminal, and takes it away', () => {
    const output = fakeOutput(true);
    const stage = progressTo(output).begin('entries walked', 4000);
    stage.advance(1000);
    output.pass(2000);
    expect(output.lines).toEqual([]);
    expect(output.written.join('')).toContain(
      '[######                  ] 1,000 of 4,000 entries walked, about 6 s left',
    );
    stage.end();
    expect(output.written.at(-1)).toBe('\r\u001b[K');
  });

  it('writes lines elsewhere, not more often than it is worth', () => {
    const output = fakeOutput(false);
    const stage = progressTo(output).begin('entries walked', 4000);
    stage.advance(1000);
    for (let i = 0; i < 30; i++) output.pass(200);
    stage.end();
    expect(output.lines).toEqual([
      '25%: 1,000 of 4,000 entries walked, 1 s, about 3 s left',
      '25%: 1,000 of 4,000 entries walked, 6 s, about 18 s left',
    ]);
    expect(output.written).toEqual([]);
  });

  it('says how many where nobody knows of how many, and looks at the clock while a loop keeps timers waiting', () => {
    const output = fakeOutput(false);
    const stage = progressTo(output).begin('entries walked');
    output.nowMs = 3000;
    for (let i = 0; i < 256; i++) stage.advance();
    expect(output.lines).toEqual(['256 entries walked, 3 s']);
    stage.setTotal(512);
    output.pass(5000);
    expect(output.lines.at(-1)).toBe('50%: 256 of 512 entries walked, 8 s, about 8 s left');
    stage.end();
  });
});
