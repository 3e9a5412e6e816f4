import type { DrillReport } from './drill.ts';

/** A drill as JUnit XML, which continuous integration shows. */
export function toJunit({ snapshot, checks, seconds, storeBytes, decodedBytes }: DrillReport): string {
  const count = (result: string) => checks.filter((check) => check.result === result).length;
  const cases = checks.map(({ name, result, text, seconds: time }) => {
    const message = escapeXml(text.split('\n')[0]!);
    const inner = {
      passed: text === '' ? '' : `<system-out>${escapeXml(text)}</system-out>`,
      failed: `<failure message="${message}">${escapeXml(text)}</failure>`,
      error: `<error message="${message}">${escapeXml(text)}</error>`,
      skipped: `<skipped message="${escapeXml(text)}"/>`,
    }[result];
    return `    <testcase classname="drill" name="${escapeXml(name)}" time="${time.toFixed(3)}">${inner}</testcase>`;
  });
  const numbers = `tests="${checks.length}" failures="${count('failed')}" errors="${count('error')}" skipped="${count('skipped')}" time="${seconds.toFixed(3)}"`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${numbers}>`,
    `  <testsuite name="kloset-nbd drill ${snapshot}" ${numbers}>`,
    `    <properties><property name="storeBytes" value="${storeBytes}"/><property name="decodedBytes" value="${decodedBytes}"/></properties>`,
    ...cases,
    '  </testsuite>',
    '</testsuites>',
    '',
  ].join('\n');
}

/** Control characters that XML 1.0 cannot hold become spaces. */
function escapeXml(text: string): string {
  const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return Array.from(text, (character) => {
    const code = character.codePointAt(0)!;
    if (code < 0x20 && !'\t\n\r'.includes(character)) return ' ';
    return entities[character] ?? character;
  }).join('');
}
