import { expect, test } from 'vitest';
import { effectiveSettings, formatConfiguration, parseConfiguration } from '../../../src/postgres/configuration.ts';

test('reads what PostgreSQL reads, and leaves out what it refuses', () => {
  const text = [
    '# a comment',
    "archive_command = 'cp %p ''/x y''/%f'   # behind it",
    'Work_Mem 64MB',
    'port=5433#no space',
    "listen_addresses='*'",
    "log_line_prefix = '%m \\'q\\' \\101'",
    "my.setting = 'own'",
    'broken = two words',
    '= nothing',
    "unfinished = 'text",
  ].join('\r\n');
  expect(parseConfiguration(text)).toEqual([
    { name: 'archive_command', value: "cp %p '/x y'/%f" },
    { name: 'work_mem', value: '64MB' },
    { name: 'port', value: '5433' },
    { name: 'listen_addresses', value: '*' },
    { name: 'log_line_prefix', value: "%m 'q' A" },
    { name: 'my.setting', value: 'own' },
  ]);
});

test('the last of two lines counts, and includes are no settings', () => {
  const settings = parseConfiguration("include 'a.conf'\nport = 1\nport = 2\ninclude_if_exists = b.conf");
  expect([...effectiveSettings(settings)]).toEqual([['port', '2']]);
});

test('what is written is read as it was', () => {
  const settings = new Map([
    ['a', "it's"],
    ['b', 'back\\slash'],
    ['c', 'two\nlines'],
    ['d', ''],
  ]);
  expect(effectiveSettings(parseConfiguration(formatConfiguration(settings)))).toEqual(settings);
});

test('hostile files cost no more time than their length', () => {
  const blanks = ' '.repeat(16_000);
  const lines = [
    `a${blanks}b c`,
    `a = '${'x'.repeat(16_000)}`,
    `${'a'.repeat(100_000)} = 1`,
    `b = ${'1'.repeat(20_000)}`,
  ];
  expect(parseConfiguration(Array.from({ length: 250 }, () => lines.join('\n')).join('\n'))).toEqual([]);
  expect(parseConfiguration(`a${blanks}=${blanks}1`)).toEqual([]);
  expect(parseConfiguration(`a  =  1  # ${blanks.slice(0, 9000)}`)).toEqual([{ name: 'a', value: '1' }]);
  expect(parseConfiguration('a=1\n'.repeat(300_000)).length).toBe(300_000);
});
