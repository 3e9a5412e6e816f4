/**
 * Counts what did not run and says why, at the end of a run, so that nobody takes a skipped test for a passed one.
 * With KLOSET_NBD_NO_SKIPS=1 every skip fails the run, save those that need nothing but plakar, which no package
 * repository carries, or /dev/net/tun, which containers are rarely given. Its last line, `N passed, N failed, N skipped`, is the one continuous integration reads.
 */
import type { Reporter, TestCase, TestModule } from 'vitest/node';
import { missingNeeds, type Need } from './requires.ts';

/** What a machine may always lack. */
const optionalNeeds: readonly Need[] = ['plakar', 'tun'];

export interface SkippedTest {
  readonly fullName: string;
  /** Of `ctx.skip(note)`. */
  readonly note: string | undefined;
}

export interface SkipSummary {
  /** One line for each reason, with its number of tests. */
  readonly lines: readonly string[];
  /** Names of the tests that had to run where no skips are allowed. */
  readonly unexcused: readonly string[];
}

export function summariseSkips(skipped: readonly SkippedTest[]): SkipSummary {
  const counts = new Map<string, number>();
  const unexcused: string[] = [];
  for (const { fullName, note } of skipped) {
    const needs = missingNeeds(fullName);
    const reason = needs === undefined ? (note ?? 'no reason given') : `needs ${needs.join(', ')}`;
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
    if (needs === undefined || needs.some((need) => !optionalNeeds.some((optional) => optional === need))) {
      unexcused.push(fullName);
    }
  }
  const lines = [...counts].sort(([, a], [, b]) => b - a).map(([reason, count]) => `${count} skipped: ${reason}`);
  return { lines, unexcused };
}

export default class SkipsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const cases = modules.flatMap((module) => [...module.children.allTests()]);
    const inState = (state: ReturnType<TestCase['result']>['state']) =>
      cases.filter((test) => test.result().state === state);
    const skipped = inState('skipped').map((test) => ({ fullName: test.fullName, note: noteOf(test) }));
    const { lines, unexcused } = summariseSkips(skipped);
    for (const line of lines) console.log(line);

    const forbidden = process.env.KLOSET_NBD_NO_SKIPS === '1' ? unexcused : [];
    for (const name of forbidden) console.log(`must not be skipped here: ${name}`);
    // A file that cannot be loaded has no tests to count, and a test that never ended is none that passed.
    const brokenFiles = modules.filter((module) => module.errors().length > 0).length;
    const unfinished = inState('pending').length + brokenFiles + unhandledErrors.length;
    const failed = inState('failed').length + unfinished + forbidden.length;
    if (failed > 0) process.exitCode = 1;
    console.log(`${inState('passed').length} passed, ${failed} failed, ${skipped.length - forbidden.length} skipped`);
  }
}

function noteOf(test: TestCase): string | undefined {
  const result = test.result();
  return result.state === 'skipped' ? result.note : undefined;
}
