import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { runPassphraseCommand } from '../../../src/kloset/passphrase-command.ts';
import {
  moveRoot,
  parseOldFile,
  parseStoresFile,
  plakarConfigDirectory,
  readPlakarStores,
  resolveStore,
} from '../../../src/kloset/plakar-config.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';
import { privatePlakarEnvironment } from '../../support/plakar-server-real.ts';
import { commandPath, requires } from '../../support/requires.ts';

const cleanup = cleanupAfterEach();

const STORES = `version: v1.0.0
default: album
stores:
    album:
        location: s3://127.0.0.1:7070/backups/album
        access_key: "0755"
        use_tls: no
        secret_access_key: hidden
        passphrase: also hidden
    plain:
        location: /srv/plain
        passphrase_cmd: pass show it
    nowhere:
        access_key: x
`;

/** A configuration directory with these files, and an environment that leads to it. */
function configured(files: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const XDG_CONFIG_HOME = temporaryFolder(cleanup);
  mkdirSync(join(XDG_CONFIG_HOME, 'plakar'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(XDG_CONFIG_HOME, 'plakar', name), text);
  return { XDG_CONFIG_HOME, HOME: '/home/nobody' };
}

describe('parseStoresFile', () => {
  it('reads the present format, scalars as they are written', () => {
    const { stores, defaultName } = parseStoresFile(STORES);
    expect(defaultName).toBe('album');
    expect([...stores.keys()]).toEqual(['album', 'plain', 'nowhere']);
    expect(stores.get('album')).toMatchObject({ access_key: '0755', use_tls: 'no' });
  });

  it('reads the format without a version, and its mark of the default', () => {
    const { stores, defaultName } = parseStoresFile('a: {location: /a}\nb: {location: /b, .isDefault: "yes"}\n');
    expect(defaultName).toBe('b');
    expect(stores.get('b')).toEqual({ location: '/b' });
    expect(() => parseStoresFile('a: {.isDefault: yes}\nb: {.isDefault: yes}\n')).toThrow();
  });

  it('takes nothing for no stores', () => {
    for (const text of ['', '# nothing\n', 'version: v1.0.0\nstores:\n', 'version: v1.0.0\nstores: {}\n']) {
      expect(parseStoresFile(text)).toEqual({ stores: new Map(), defaultName: undefined });
    }
  });

  it.each(['- a\n', 'a: [b]\n', 'a: {b: {c: d}}\n', 'a: b\n', '? [x]\n: {location: y}\n', 'a: {b: c\n'])(
    'refuses %j',
    (text) => {
      expect(() => parseStoresFile(text)).toThrow();
    },
  );
});

it('reads the oldest format', () => {
  const text = 'default-repo: a\nrepositories:\n  a:\n    location: /a\nremotes:\n  b:\n    location: /b\n';
  expect(parseOldFile(text)).toEqual({ stores: new Map([['a', { location: '/a' }]]), defaultName: 'a' });
  expect(parseOldFile('default-repo: ""\n')).toEqual({ stores: new Map(), defaultName: undefined });
});

describe('readPlakarStores', () => {
  const names = (environment: NodeJS.ProcessEnv) => [
    ...readPlakarStores(plakarConfigDirectory(environment)).stores.keys(),
  ];

  it('takes the newest file there is', () => {
    const old = { 'klosets.yml': 'k: {location: /k}', 'plakar.yml': 'repositories: {o: {location: /o}}' };
    expect(names(configured({ 'stores.yml': 's: {location: /s}', ...old }))).toEqual(['s']);
    expect(names(configured(old))).toEqual(['k']);
    expect(names(configured({ 'plakar.yml': old['plakar.yml'] }))).toEqual(['o']);
    expect(names(configured({}))).toEqual([]);
    expect(names({ XDG_CONFIG_HOME: '/nowhere/at/all' })).toEqual([]);
  });

  it('names file and line of what it cannot read, and none of its secrets', () => {
    const environment = configured({ 'stores.yml': 'a:\n  passphrase: "hidden\n  location: /a\n' });
    const read = () => names(environment);
    expect(read).toThrow(UserError);
    expect(read).toThrow(/stores\.yml cannot be understood \(line \d+\)/);
    expect(read).not.toThrow(/hidden/);
  });

  it('bounds aliases that multiply', () => {
    const lines = ['a: &a {x: y}'];
    for (let level = 0; level < 12; level++) {
      const above = level === 0 ? 'a' : `l${level - 1}`;
      lines.push(`l${level}: &l${level} [${Array(9).fill(`*${above}`).join(', ')}]`);
    }
    expect(() => names(configured({ 'stores.yml': lines.join('\n') }))).toThrow(UserError);
  });
});

describe('resolveStore', () => {
  it('leaves what is no name as it is, and does not look at the configuration', () => {
    const environment = configured({ 'stores.yml': '{' });
    expect(resolveStore('/srv/@x', environment)).toEqual({ location: '/srv/@x', options: {} });
    expect(resolveStore(undefined, { ...environment, PLAKAR_REPOSITORY: '/p' }).location).toBe('/p');
  });

  it('finds names with their options, and keeps secrets of the store apart', () => {
    const environment = configured({ 'stores.yml': STORES });
    expect(resolveStore('@album', environment)).toEqual({
      location: 's3://127.0.0.1:7070/backups/album',
      options: { access_key: '0755', use_tls: 'no', secret_access_key: 'hidden' },
      passphrase: 'also hidden',
    });
    expect(resolveStore('@plain', environment)).toEqual({
      location: '/srv/plain',
      options: {},
      passphraseCommand: 'pass show it',
    });
    expect(resolveStore(undefined, { ...environment, PLAKAR_REPOSITORY: '@plain' }).location).toBe('/srv/plain');
  });

  it('takes the default store, then the one in the home directory', () => {
    const environment = configured({ 'stores.yml': STORES });
    expect(resolveStore(undefined, environment).location).toBe('s3://127.0.0.1:7070/backups/album');
    expect(resolveStore(undefined, configured({})).location).toBe('/home/nobody/.plakar');
  });

  it('says which names there are', () => {
    const environment = configured({ 'stores.yml': STORES });
    for (const [name, reason] of [
      ['@other', /no store @other. It has @album, @plain, @nowhere/],
      ['@nowhere', /@nowhere .* no location/],
      ['@', /no store @\./],
      ['@__proto__', /no store/],
    ] as const) {
      const resolve = () => resolveStore(name, environment);
      expect(resolve).toThrow(reason);
      expect(resolve).toThrow(expect.objectContaining({ exitCode: 66 }));
      expect(resolve).not.toThrow(/hidden/);
    }
  });

  it.each([
    ['/srv/a', '', '/srv/a'],
    ['/srv/a', 'b', '/srv/a/b'],
    ['/srv/a', '/b', '/b'],
    ['s3://host:1/bucket/p', 'q', 's3://host:1/bucket/p/q'],
    ['s3://host:1/bucket/p', '/other', 's3://host:1/other'],
    ['http://host/base?x=y', 'z', 'http://host/base/z?x=y'],
    ['fs:/srv/a', 'b', 'fs:/srv/a/b'],
  ])('moves %s by "%s" to %s', (location, root, moved) => {
    expect(moveRoot(location, root)).toBe(moved);
  });
});

const need = requires('plakar');
it.skipIf(need.missing)(need.title('reads what the real plakar writes'), () => {
  const environment = privatePlakarEnvironment(cleanup);
  const plakar = (...words: string[]) => execFileSync(commandPath('plakar'), words, { env: environment });
  plakar('store', 'add', 'album', 's3://127.0.0.1:1/b/p', 'access_key=0755', 'secret_access_key=a "b": #c');
  plakar('store', 'add', 'plain', '/srv/plain', 'passphrase= two words ');
  expect(resolveStore('@album', environment)).toEqual({
    location: 's3://127.0.0.1:1/b/p',
    options: { access_key: '0755', secret_access_key: 'a "b": #c' },
  });
  expect(resolveStore('@plain', environment)).toEqual({
    location: '/srv/plain',
    options: {},
    passphrase: ' two words ',
  });
});

describe('runPassphraseCommand', () => {
  it.each([
    ['printf "a b"', 'a b'],
    ['echo " a "', ' a '],
    ["printf 'x\\r\\n'", 'x'],
    ["printf '\\303\\251\\377\\n' | cat", 'c3a9ff'],
  ])('takes the line of %s', async (command, expected) => {
    const line = Buffer.from(await runPassphraseCommand(command));
    expect([line.toString(), line.toString('hex')]).toContain(expected);
  });

  it.each([
    ['true', /exactly one line/],
    ["printf 'hidden\\nhidden\\n'", /exactly one line/],
    ['echo hidden; exit 3', /ended with 3/],
    ['echo hidden; kill -9 $$', /ended with SIGKILL/],
    ['head -c 70000 /dev/zero', /exactly one line/],
  ])('refuses %s', async (command, reason) => {
    const running = runPassphraseCommand(command);
    await expect(running).rejects.toThrow(reason);
    await expect(running).rejects.toMatchObject({ exitCode: 77, message: expect.not.stringContaining('hidden') });
  });
});

it('says that a configuration may not be read', () => {
  const environment = configured({});
  const directory = plakarConfigDirectory(environment);
  mkdirSync(join(directory, 'stores.yml'));
  chmodSync(directory, 0o755);
  expect(() => readPlakarStores(directory)).toThrow(/cannot be read \(EISDIR\)/);
});
