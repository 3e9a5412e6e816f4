import { expect, test } from 'vitest';
import { parseCopied } from '../../../src/postgres/cluster.ts';

test("COPY's text format, whatever names hold", () => {
  expect(parseCopied('database\tplain')).toEqual(['database', 'plain']);
  expect(parseCopied('database\ttwo\\nlines\\tand \\\\ "quotes"')).toEqual(['database', 'two\nlines\tand \\ "quotes"']);
  expect(parseCopied('a\t\t\\\\n')).toEqual(['a', '', '\\n']);
});
