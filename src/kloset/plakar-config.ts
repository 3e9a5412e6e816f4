/**
 * plakar's configuration, read and never written: which stores have names, which is the default, with which options and
 * secrets. Three formats, as plakar itself reads them: `stores.yml` of version v1.0.0 (formerly `klosets.yml`), the same
 * without a version, and the still older `plakar.yml`.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import path from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';
import { PLAKAR_CONFIG_BYTES_MAX } from './fetch-limits.ts';
import type { StoreOptionTexts } from './s3-location.ts';

export interface PlakarStores {
  readonly stores: ReadonlyMap<string, StoreOptionTexts>;
  readonly defaultName: string | undefined;
}

/** A store as it is to be opened. */
export interface ResolvedStore {
  /** Never begins with `@`. */
  readonly location: string;
  /** The back-end's options, secrets of the back-end among them. */
  readonly options: StoreOptionTexts;
  /** The passphrase itself, or the shell command that prints it: at most one of them. */
  readonly passphrase?: string;
  readonly passphraseCommand?: string;
}

const require = createRequire(import.meta.url);

const NO_STORES: PlakarStores = { stores: new Map(), defaultName: undefined };

/** plakar's files, newest first: the first that exists counts. */
const CONFIG_FILES = [
  { name: 'stores.yml', parse: parseStoresFile },
  { name: 'klosets.yml', parse: parseStoresFile },
  { name: 'plakar.yml', parse: parseOldFile },
] as const;

/**
 * What `location` stands for; undefined is plakar's own choice: PLAKAR_REPOSITORY, the configured default, `~/.plakar`.
 * `@NAME` is looked up in plakar's configuration, and `@NAME:PATH` moves its location. Throws UserError (66).
 */
export function resolveStore(
  location: string | undefined,
  environment: NodeJS.ProcessEnv,
  directory: string = plakarConfigDirectory(environment),
): ResolvedStore {
  const given = location || environment.PLAKAR_REPOSITORY;
  if (given !== undefined && given !== '' && !given.startsWith('@')) return { location: given, options: {} };
  const { stores, defaultName } = readPlakarStores(directory);
  if (!given && defaultName === undefined) return { location: path.join(homeOf(environment), '.plakar'), options: {} };
  const [, name = '', root = ''] = /^@([^:]*):?(.*)$/s.exec(given || `@${defaultName}`)!;
  const found = stores.get(name);
  if (found === undefined) {
    const known = [...stores.keys()].map((other) => `@${other}`).join(', ');
    throw noStore(
      `plakar's configuration in ${directory} has no store @${name}. ${known === '' ? 'It names none.' : `It has ${known}.`}`,
    );
  }
  const { location: configured, passphrase, passphrase_cmd: command, ...options } = found;
  if (!configured) throw noStore(`The store @${name} of plakar's configuration has no location.`);
  const moved = { location: moveRoot(configured, root), options };
  // As in plakar, the passphrase itself goes before the command.
  if (passphrase !== undefined) return { ...moved, passphrase };
  return command === undefined ? moved : { ...moved, passphraseCommand: command };
}

/** Where plakar keeps its configuration on this system. */
export function plakarConfigDirectory(environment: NodeJS.ProcessEnv): string {
  return path.join(environment.XDG_CONFIG_HOME || path.join(homeOf(environment), '.config'), 'plakar');
}

/** The stores that are configured; none if there is no configuration. Throws UserError if it cannot be read. */
export function readPlakarStores(directory: string): PlakarStores {
  for (const { name, parse: parseFile } of CONFIG_FILES) {
    const file = path.join(directory, name);
    const text = readIfThere(file);
    if (text === undefined) continue;
    try {
      return parseFile(text);
    } catch (error) {
      // The parser's own message quotes the text, which holds secrets: only where it stumbled is told.
      const line = (error as { linePos?: readonly { line: number }[] }).linePos?.[0]?.line;
      const where = line === undefined ? '' : ` (line ${line})`;
      throw new UserError(`plakar's configuration ${file} cannot be understood${where}.`);
    }
  }
  return NO_STORES;
}

/** `stores.yml`: `version`, `default`, `stores`; or, before there were versions, the stores alone with a mark in one. */
export function parseStoresFile(text: string): PlakarStores {
  const top = toMap(parseYaml(text));
  if (top.get('version') === 'v1.0.0') {
    const defaultName = top.get('default');
    return {
      stores: toStores(top.get('stores')),
      defaultName: typeof defaultName === 'string' ? defaultName : undefined,
    };
  }
  const marked = toStores(top);
  const defaults = [...marked].filter(([, options]) => '.isDefault' in options).map(([name]) => name);
  if (defaults.length > 1) throw new Error('more than one default');
  const stores = new Map([...marked].map(([name, { '.isDefault': _mark, ...options }]) => [name, options]));
  return { stores, defaultName: defaults[0] };
}

/** `plakar.yml`: `default-repo` and `repositories`, which are stores. */
export function parseOldFile(text: string): PlakarStores {
  const top = toMap(parseYaml(text));
  const defaultName = top.get('default-repo');
  return {
    stores: toStores(top.get('repositories')),
    defaultName: typeof defaultName === 'string' && defaultName !== '' ? defaultName : undefined,
  };
}

/** Scalars stay the texts they are written as, as in plakar: `yes`, `1` and `0755` are no booleans and numbers here. */
function parseYaml(text: string): unknown {
  // Loaded only where there is a configuration: it takes a start some 40 ms.
  const { parse } = require('yaml') as typeof import('yaml');
  return parse(text, { schema: 'failsafe', mapAsMap: true, logLevel: 'error' });
}

function toStores(value: unknown): Map<string, StoreOptionTexts> {
  return new Map([...toMap(value)].map(([name, options]) => [name, toTexts(options)]));
}

function toTexts(value: unknown): StoreOptionTexts {
  const entries = [...toMap(value)].map(([name, text]) => {
    if (text !== null && typeof text !== 'string') throw new Error(`option ${name} is no text`);
    return [name, text ?? ''] as const;
  });
  return Object.fromEntries(entries);
}

/** An empty file or value is an empty map. */
function toMap(value: unknown): Map<string, unknown> {
  if (value === null || value === undefined || value === '') return new Map();
  if (!(value instanceof Map)) throw new Error('not a map');
  for (const key of value.keys()) if (typeof key !== 'string') throw new Error('a key is no text');
  return value;
}

/** plakar's rule for `@NAME:PATH`: an absolute path takes the place of the location's, another one is added to it. */
export function moveRoot(location: string, root: string): string {
  if (root === '') return location;
  const [, origin = '', base = '', rest = ''] = /^([a-z][a-z0-9+.-]+:(?:\/\/[^/?#]*)?)?([^?#]*)(.*)$/is.exec(location)!;
  return `${origin}${root.startsWith('/') ? root : path.posix.join(base || '/', root)}${origin === '' ? '' : rest}`;
}

function homeOf(environment: NodeJS.ProcessEnv): string {
  return environment.HOME || homedir();
}

function readIfThere(file: string): string | undefined {
  try {
    const content = readFileSync(file);
    if (content.byteLength > PLAKAR_CONFIG_BYTES_MAX) throw new UserError(`${file} is too long to be a configuration.`);
    return content.toString();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    if (error instanceof UserError) throw error;
    throw new UserError(`plakar's configuration ${file} cannot be read (${code}).`, { cause: error });
  }
}

function noStore(message: string): UserError {
  return new UserError(message, { exitCode: exitCodes.noStore });
}
