/** PostgreSQL's configuration files, read as its own parser reads them. Source: guc-file.l, "Setting Parameters". */

/** One setting; names in lower case. */
export interface Setting {
  readonly name: string;
  readonly value: string;
}

/** `include`, `include_if_exists` and `include_dir` are settings to us: whoever reads the file follows them. */
export const includeNames = ['include', 'include_if_exists', 'include_dir'];

const NAME = /^[A-Za-z_][\w.$]*/;
/** What may stand between name and value. */
const EQUALS = /^\s*=?\s*/;
const VALUE = /^(?:'(?:[^'\\\n]|''|\\.)*'|[^\s#']+)/;

/** A longer line is no setting of anybody's, characters. */
const LINE_LENGTH_MAX = 16_384;

/** The settings of one file in its order; lines that PostgreSQL would refuse are left out. Time and memory are linear. */
export function parseConfiguration(text: string): Setting[] {
  return text.split(/\r?\n/).flatMap((line) => (line.length > LINE_LENGTH_MAX ? [] : parseLine(line.trim())));
}

function parseLine(line: string): Setting[] {
  const name = NAME.exec(line)?.[0];
  if (name === undefined) return [];
  const behind = line.slice(name.length);
  const between = EQUALS.exec(behind)![0];
  const value = VALUE.exec(behind.slice(between.length))?.[0];
  if (value === undefined || (between === '' && !value.startsWith("'"))) return [];
  const rest = behind.slice(between.length + value.length).trimStart();
  return rest === '' || rest.startsWith('#') ? [{ name: name.toLowerCase(), value: unquote(value) }] : [];
}

/** The value that a later line does not replace, by name. */
export function effectiveSettings(settings: readonly Setting[]): ReadonlyMap<string, string> {
  return new Map(settings.filter(({ name }) => !includeNames.includes(name)).map(({ name, value }) => [name, value]));
}

export function formatConfiguration(settings: ReadonlyMap<string, string>): string {
  return [...settings].map(([name, value]) => `${name} = ${quote(value)}\n`).join('');
}

function unquote(value: string): string {
  if (!value.startsWith("'")) return value;
  return value.slice(1, -1).replace(/''|\\([0-7]{1,3}|.)/g, (match, escaped: string | undefined) => {
    if (match === "''") return "'";
    if (/^[0-7]/.test(escaped!)) return String.fromCharCode(Number.parseInt(escaped!, 8));
    return { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }[escaped!] ?? escaped!;
  });
}

function quote(value: string): string {
  const escaped = value.replace(/['\\\n\r]/g, (character) =>
    character === '\n' ? '\\n' : character === '\r' ? '\\r' : character + character,
  );
  return `'${escaped}'`;
}
