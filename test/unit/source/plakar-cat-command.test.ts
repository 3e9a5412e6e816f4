import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { StoreUnavailableError, UserError } from '../../../src/core/errors.ts';
import { silentLog } from '../../../src/core/log.ts';
import { PlakarCatChunkStore } from '../../../src/source/plakar-cat-chunk-store.ts';
import { catCommand, ownTextIn, quote } from '../../../src/source/plakar-cat-command.ts';
import type { PlakarOptions } from '../../../src/source/plakar-cat-options.ts';
import { fakeFile, testDecoder, writeProgram } from '../../support/fake-plakar.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';

const cleanup = cleanupAfterEach();
const plakar: PlakarOptions = { command: 'plakar', location: '/the/store' };

describe('the command line', () => {
  test('has global options before `at`, and no passphrase', () => {
    const options = { ...plakar, cacheDir: '/cache', keyfile: '/key', passphrase: 'secret' };
    expect(catCommand(options, [{ snapshotId: 'ab', path: Buffer.from('/é') }])).toEqual({
      file: 'plakar',
      args: ['-cachedir', '/cache', '-keyfile', '/key', '-quiet', 'at', '/the/store', 'cat', 'ab:/é'],
    });
  });

  test.each([
    ['bytes that are not UTF-8', '/bad\xff\xfe\xc3'],
    ['line feeds at the end', '/\xffline\n\n'],
    ['what a shell or printf could take for its own', '/\xff\'"$(id)`id`\\101 %s%% *\t;&|~#!\x01'],
    ['a slash at the end', '/\xff/'],
    ['a leading dash and a colon', '/\xff/-x:y'],
  ])('hands on %s', (_, path) => {
    const folder = temporaryFolder(cleanup);
    const command = writeProgram(folder, `#!/bin/sh\nshift "$(($# - 2))"\nprintf '%s\\000' "$@"\n`);
    const operands = [path, '/plain'].map((each) => ({ snapshotId: 'ab', path: Buffer.from(each, 'latin1') }));
    const { file, args } = catCommand({ ...plakar, command }, operands);
    expect(execFileSync(file, args).toString('latin1')).toBe(`ab:${path}\0ab:/plain\0`);
  });
});

describe('plakar’s words', () => {
  test('are cut to a few short lines, without control characters and secrets', () => {
    const text = '\u001b[31merror\u0007: my secret\n\nat sftp://me:word@host/x\r\nthird\nfourth\n';
    expect(quote(Buffer.from(text), { ...plakar, passphrase: 'my secret' })).toBe(
      '[31merror : *** / at sftp://***@host/x / third',
    );
    expect(quote(Buffer.from('x'.repeat(1000)), plakar)).toHaveLength(301);
    expect(quote(new Uint8Array(), plakar)).toBe('');
  });

  test('are told from the content of files', () => {
    expect(ownTextIn(Buffer.from('Welcome to plakar !\n\nBy default')).toString()).toBe('Welcome to plakar !\n');
    expect(ownTextIn(Buffer.from('data\0dataplakar: errors occurred\n')).toString()).toBe('plakar: errors occurred\n');
    expect(ownTextIn(Buffer.from('a private line\nanother'))).toHaveLength(0);
  });
});

describe('a plakar that cannot be used', () => {
  function makeStore(options: Partial<PlakarOptions>) {
    const store = new PlakarCatChunkStore({
      plakar: { ...plakar, ...options },
      decoder: testDecoder,
      log: silentLog,
      spool: { directory: temporaryFolder(cleanup) },
      idleTimeoutMs: 10_000,
    });
    cleanup.add(() => store.close());
    return store;
  }

  const scripts = {
    directory: (folder: string) => {
      mkdirSync(join(folder, 'plakar'));
      return join(folder, 'plakar');
    },
    missing: (folder: string) => join(folder, 'plakar'),
    notExecutable: (folder: string) => writeProgram(folder, '#!/bin/sh\n', 0o644),
    badInterpreter: (folder: string) => writeProgram(folder, '#!/no/such/interpreter\n'),
  };

  test.each([
    ['missing', /there is no program ".*plakar": install plakar, or say where it is with --plakar PATH/],
    ['notExecutable', /may not be executed: make it executable/],
    ['directory', /may not be executed/],
    ['badInterpreter', /there is no program/],
  ] as const)('is named before serving and when reading: %s', async (kind, message) => {
    const store = makeStore({ command: scripts[kind](temporaryFolder(cleanup)) });
    await expect(store.check()).rejects.toThrow(UserError);
    await expect(store.check()).rejects.toThrow(message);
    const plainPath = store.get(fakeFile('/file', ['content']).chunk(0));
    await expect(plainPath).rejects.toThrow(StoreUnavailableError);
    await expect(plainPath).rejects.toThrow(message);
  });

  test('is named when the path takes the detour over the shell, too', async () => {
    const store = makeStore({ command: scripts.missing(temporaryFolder(cleanup)) });
    const read = store.get(fakeFile(Buffer.from('/\xff', 'latin1'), ['content']).chunk(0));
    await expect(read).rejects.toThrow(/install plakar, or say where it is with --plakar PATH/);
  });

  test('a program that is not plakar', async () => {
    const store = makeStore({ command: writeProgram(temporaryFolder(cleanup), '#!/bin/sh\necho hello\n') });
    await expect(store.check()).rejects.toThrow(/does not say which plakar it is - plakar says: "hello"/);
  });

  test('a program that fails', async () => {
    const script = '#!/bin/sh\necho cannot write >&2\nexit 1\n';
    const store = makeStore({ command: writeProgram(temporaryFolder(cleanup), script) });
    await expect(store.check()).rejects.toThrow(/exit code 1 - plakar says: "cannot write"/);
  });

  test('its welcome is let out before anything is read, and its update check only switched off in our own cache', async () => {
    const folder = temporaryFolder(cleanup);
    const script = `#!/bin/sh\necho "$@" >> "${folder}/calls"\necho Welcome to plakar !\necho plakar/v9\n`;
    const command = writeProgram(folder, script);
    expect(await makeStore({ command }).check()).toBe('plakar/v9');
    expect(await makeStore({ command, cacheDir: '/cache', keyfile: '/key' }).check()).toBe('plakar/v9');
    const calls = execFileSync('cat', [join(folder, 'calls')]).toString();
    expect(calls).toBe('version\n-cachedir /cache -disable-security-check\n-cachedir /cache version\n');
  });

  test('open gives a store that works, or leaves nothing behind', async () => {
    const folder = temporaryFolder(cleanup);
    const command = writeProgram(folder, '#!/bin/sh\necho plakar/v9\n');
    const options = { plakar: { ...plakar, command }, decoder: testDecoder, log: silentLog };
    const store = await PlakarCatChunkStore.open({ ...options, spool: { directory: folder } });
    await store.close();
    const missing = { directory: join(folder, 'missing') };
    await expect(PlakarCatChunkStore.open({ ...options, spool: missing })).rejects.toThrow(UserError);
  });
});
