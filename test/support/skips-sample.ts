/** What package-skips.test.ts runs in a vitest of its own: one test that runs, one excused skip, one that is not. */
import { expect, test } from 'vitest';

test('runs', () => expect(process.env.SKIPS_SAMPLE_FAILS).toBeUndefined());
test.skip('suite [skipped, needs plakar (not on PATH)]', () => {});
test.skip('suite [skipped, needs fio (not on PATH; Debian: fio)]', () => {});
