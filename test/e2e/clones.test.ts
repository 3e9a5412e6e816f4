/** Clones as operators use them: commands, servers that are killed, clients that other people wrote. */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, test } from 'vitest';
import { exportUri, mustRun, type ProcessResult, run, runCli, startServer } from '../support/cli.ts';
import { copyToImage, listExports, nbdsh, sha256OfExport } from '../support/cli-clients.ts';
import { albumSnapshots, albumStore, cleanupAfterEach, storePath, temporaryFolder } from '../support/fixtures.ts';
import { fsckRemarks } from '../support/mount.ts';
import { commandPath, findPythonWithLibnbd, requires } from '../support/requires.ts';

const [before] = albumSnapshots;
const cleanup = cleanupAfterEach();
const need = requires('flock', 'nbdinfo', 'nbdcopy', 'python3-libnbd');

interface Workshop {
  readonly folder: string;
  readonly directory: string;
  /** Runs a command with the store and the clones' directory. */
  cli(...args: readonly string[]): Promise<ProcessResult>;
  /** The same for what must succeed: its standard output. */
  must(...args: readonly string[]): Promise<string>;
  serve(...args: readonly string[]): ReturnType<typeof startServer>;
}

function workshop(store = albumStore): Workshop {
  const folder = temporaryFolder(cleanup);
  const directory = join(folder, 'clones');
  const common = ['--store', store, '--clones', directory, '--no-cache'];
  const cli = (...args: readonly string[]) => runCli([...args, ...common]);
  return {
    folder,
    directory,
    cli,
    async must(...args) {
      const result = await cli(...args);
      if (result.exitCode !== 0)
        throw new Error(`${args.join(' ')}: ${result.exitCode}\n${result.stdout}${result.stderr}`);
      return result.stdout;
    },
    serve: (...args) => startServer(cleanup, [...common, ...args]),
  };
}

const create = ['clone', 'create'] as const;
const small = ['--free', '32M'] as const;

/** A client that stays attached to an export until `leave` is called. `gone` settles when the server threw it out. */
async function attach(uri: string): Promise<{ leave(): void; readonly ended: Promise<number | null> }> {
  const code = ['import sys', 'print("attached", flush=True)', 'sys.stdin.readline()', 'h.pread(512, 0)'].join('\n');
  const child = spawn(findPythonWithLibnbd()!, ['-m', 'nbd', '-u', uri, '-c', code], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  cleanup.add(() => child.kill('SIGKILL'));
  await new Promise((resolve) => createInterface({ input: child.stdout }).once('line', resolve));
  return { leave: () => child.stdin.end('\n'), ended };
}

describe.skipIf(need.missing)(need.title('clones'), () => {
  test('are made in a moment, of a snapshot or a directory of it, and found by a server that runs already', async () => {
    const { must, cli, serve, directory } = workshop();
    await must(...create, 'first', 'latest');
    const { uris } = await serve('latest', ...small);
    expect(await must(...create, 'second', 'tag:before', '--owner', '0:0', '--ttl', '7d', '--protect')).toMatch(
      /"second" of snapshot 6300a0a8 is made/,
    );
    await must(...create, 'part', 'latest:base', ...small);
    const names = (await listExports(uris[0]!)).map((one) => one['export-name']);
    expect(names).toEqual([
      'latest',
      'latest@base',
      'first',
      'part',
      'second',
      'first@base',
      'part@base',
      'second@base',
    ]);
    expect(statSync(join(directory, 'first.clone')).size).toBeLessThan(4096);
    const list: Record<string, unknown>[] = JSON.parse(await must('clone', 'list', '--json'));
    expect(list).toMatchObject([
      { name: 'first', protected: false, expires: null, connected: false },
      { name: 'part', parts: [{ path: expect.stringMatching(/\/base$/) }] },
      { name: 'second', protected: true, snapshot: before.id, layout: { owner: { uid: 0, gid: 0 } } },
    ]);
    for (const [name, snapshot, message] of [
      ['first', 'latest', /already/],
      ['cafe', 'latest', /cannot be a clone's name/],
      ['fine', 'tag:none', /No snapshot/],
      ['fine', 'latest:/none', /none/],
    ] as const) {
      const refused = await cli(...create, name, snapshot);
      expect(refused.exitCode, name).toBe(64);
      expect(refused.stderr).toMatch(message);
    }
    expect((await cli('clone', 'remove', 'second')).stderr).toMatch(/protected.*unprotect second/);
    await must('clone', 'unprotect', 'second');
    await must('clone', 'remove', 'second');
    expect(await must('clone', 'list')).not.toMatch(/second/);
  });

  test('keep their writes apart, and through kill -9 of the server', async () => {
    const { must, serve } = workshop();
    for (const name of ['one', 'two']) await must(...create, name, 'latest', ...small);
    const server = await serve('latest', ...small);
    const uriOf = (name: string) => exportUri(server.uris[0]!, name);
    const original = await sha256OfExport(uriOf('one@base'));
    await nbdsh(uriOf('one'), 'h.pwrite(b"first!" * 700, 8192)\nh.flush()');
    await nbdsh(uriOf('two'), 'h.pwrite(b"second" * 700, 8192)\nh.flush()');
    server.kill('SIGKILL');
    await server.ended;
    const { uris } = await serve('latest', ...small);
    const again = (name: string) => exportUri(uris[0]!, name);
    expect(await nbdsh(again('one'), 'print(h.pread(6, 8192).decode())')).toBe('first!');
    expect(await nbdsh(again('two'), 'print(h.pread(6, 8192).decode())')).toBe('second');
    expect(await sha256OfExport(again('one@base'))).toBe(original);
    expect(await sha256OfExport(again('latest'))).not.toBe(await sha256OfExport(again('one')));
  });

  test('belong to one server at a time', async () => {
    const { must, serve } = workshop();
    await must(...create, 'one', 'latest');
    await serve('latest');
    await expect(serve('latest')).rejects.toThrow(/in use by process/);
  });

  test('are neither reset nor removed under their clients, unless by force', async () => {
    const { must, cli, serve } = workshop();
    await must(...create, 'one', 'latest', ...small);
    const { uris } = await serve('latest', ...small);
    const uri = exportUri(uris[0]!, 'one');
    await nbdsh(uri, 'h.pwrite(b"x" * 4096, 8192)');
    const client = await attach(uri);
    for (const what of ['reset', 'remove']) {
      const refused = await cli('clone', what, 'one');
      expect([refused.exitCode, refused.stderr]).toEqual([64, expect.stringMatching(/has clients.*--force/)]);
    }
    expect(JSON.parse(await must('clone', 'list', '--json'))).toMatchObject([{ connected: true }]);
    const copied = await cli('clone', 'copy', 'one', 'copy');
    expect([copied.exitCode, copied.stderr]).toEqual([
      0,
      expect.stringMatching(/as a crash of its client would leave it/),
    ]);
    await must('clone', 'reset', 'one', '--force');
    client.leave();
    expect(await client.ended, 'its client was thrown out').not.toBe(0);
    expect(await nbdsh(uri, 'print(h.pread(4096, 8192) == b"x" * 4096)')).toBe('False');
    expect(await nbdsh(exportUri(uris[0]!, 'copy'), 'print(h.pread(4096, 8192) == b"x" * 4096)')).toBe('True');
  });

  test('say what was written, checked and damaged, with a server and without', async () => {
    const { must, cli, serve, directory } = workshop();
    await must(...create, 'one', 'latest', ...small);
    const server = await serve('latest', ...small);
    await nbdsh(exportUri(server.uris[0]!, 'one'), 'h.pwrite(b"seen" * 1024, 8192)\nh.flush()');
    const asked = await must('diff', 'one', '--json');
    await server.stop();
    expect(await must('diff', 'one', '--json')).toBe(asked);
    expect(JSON.parse(asked)).toMatchObject({ clone: 'one', dirtyBytes: 4096, connected: false });
    expect(await must('clone', 'info', 'one')).toMatch(/written {4}4096 bytes/);
    expect(await must('clone', 'check', 'one')).toMatch(/sound: 1 blocks read/);
    const overlay = join(directory, readdirSync(directory).find((name) => name.startsWith('one.clone-'))!);
    const path = join(overlay, readdirSync(overlay).find((name) => name.startsWith('log-'))!);
    const bytes = readFileSync(path);
    bytes[bytes.indexOf('seenseen') + 9]! ^= 4;
    writeFileSync(path, bytes);
    const damaged = await cli('clone', 'check', 'one');
    expect([damaged.exitCode, damaged.stdout]).toEqual([
      65,
      expect.stringMatching(/block 2 of the overlay is damaged/),
    ]);
  });

  test('expire', async () => {
    const { must, serve } = workshop();
    await must(...create, 'short', 'latest', ...small);
    const { uris } = await serve('latest', ...small);
    const client = await attach(exportUri(uris[0]!, 'short'));
    await must('clone', 'ttl', 'short', '1ms');
    expect(await must('clone', 'list')).toMatch(/short/);
    client.leave();
    await client.ended;
    await expect.poll(() => must('clone', 'list'), { timeout: 30_000 }).not.toMatch(/short/);
    expect((await listExports(uris[0]!)).map((one) => one['export-name'])).toEqual(['latest', 'latest@base']);
  });
});

const needImages = requires('flock', 'nbdinfo', 'nbdcopy', 'python3-libnbd', 'qemu-img', 'e2fsck');
describe.skipIf(needImages.missing)(needImages.title('export'), () => {
  const qemuImg = (...args: readonly string[]) => mustRun(commandPath('qemu-img'), args);

  test('gives the disk that clients see, whole or as a delta over the snapshot', async () => {
    const { must, cli, serve, folder } = workshop();
    await must(...create, 'one', 'latest', ...small);
    const server = await serve('latest', ...small);
    const uri = exportUri(server.uris[0]!, 'one');
    await nbdsh(uri, 'h.pwrite(b"exported" * 8192, 1048576)\nh.trim(65536, 4194304)\nh.flush()');
    const seen = await copyToImage(cleanup, uri);
    const image = (name: string) => join(folder, name);
    const client = await attach(uri);
    const exported = await cli('export', 'one', '--to', image('one.qcow2'));
    expect([exported.exitCode, exported.stderr]).toEqual([0, expect.stringMatching(/as a crash of its client/)]);
    await must('export', 'one', '--to', image('one.raw'), '--format', 'raw');
    client.leave();
    await client.ended;
    const base = exportUri(server.uris[0]!, 'one@base');
    await must('export', 'one', '--to', image('delta.qcow2'), '--delta-only', '--backing', base);
    expect(readFileSync(image('one.raw')).equals(readFileSync(seen))).toBe(true);
    for (const name of ['one.qcow2', 'delta.qcow2']) {
      expect(await qemuImg('check', image(name)), name).toMatch(/No errors/);
      expect(await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', image(name), seen), name).toMatch(/identical/);
    }
    await server.stop();
    expect(statSync(image('delta.qcow2')).size).toBeLessThan(1024 * 1024);
    // Without a server the same bytes.
    await must('export', 'one', '--to', image('again.qcow2'));
    expect(readFileSync(image('again.qcow2')).equals(readFileSync(image('one.qcow2')))).toBe(true);
    const taken = await cli('export', 'one', '--to', image('one.raw'));
    expect([taken.exitCode, taken.stderr]).toEqual([64, expect.stringMatching(/already.*--force/)]);
    await must('export', 'one', '--to', image('one.raw'), '--force');
    expect(readdirSync(folder).filter((name) => name.endsWith('.partial'))).toEqual([]);
    for (const wrong of [
      ['--delta-only'],
      ['--backing', 'x'],
      ['--format', 'raw', '--delta-only', '--backing', 'x'],
      ['--size', '1G'],
    ]) {
      expect((await cli('export', 'one', '--to', image('wrong'), ...wrong)).exitCode, wrong.join(' ')).toBe(64);
    }
    expect(existsSync(image('wrong'))).toBe(false);
  });

  test('gives a snapshot as a filesystem, through a pipe too, and says that an encrypted one is plain text then', async () => {
    const { folder } = workshop();
    const passphrase = join(folder, 'passphrase');
    const manifest: { encryption: { passphrase: string } } = JSON.parse(
      readFileSync(storePath('encrypted').replace(/store$/, 'manifest.json'), 'utf8'),
    );
    writeFileSync(passphrase, manifest.encryption.passphrase);
    const common = ['--store', storePath('encrypted'), '--keyfile', passphrase, '--no-cache', ...small];
    // What is stored of a clone is encrypted: a check needs the key.
    const clones = ['--clones', join(folder, 'clones')];
    const server = await startServer(cleanup, [...common, ...clones]);
    await runCli(['clone', 'create', 'sealed', 'latest', ...common, ...clones]);
    await nbdsh(exportUri(server.uris[0]!, 'sealed'), 'h.pwrite(b"in the clear" * 4096, 8192)\nh.flush()');
    await server.stop();
    expect((await run('grep', ['-r', 'in the clear', clones[1]!])).stdout).toBe('');
    const checked = await runCli([
      'clone',
      'check',
      'sealed',
      '--store',
      storePath('encrypted'),
      '--keyfile',
      passphrase,
      ...clones,
    ]);
    expect([checked.exitCode, checked.stdout]).toEqual([0, expect.stringMatching(/is sound: \d+ blocks/)]);
    const image = join(folder, 'snapshot.raw');
    const exported = await runCli(['export', 'latest', '--to', image, '--format', 'raw', ...common]);
    expect([exported.exitCode, exported.stderr]).toEqual([0, expect.stringMatching(/plain text/)]);
    expect(await fsckRemarks(image)).toEqual([]);
    const cli = [process.execPath, join(process.cwd(), 'dist/cli/main.js'), 'export', 'latest', '--to', '-', ...common];
    const piped = await run('sh', ['-c', '"$@" > "$0"', join(folder, 'pipe.qcow2'), ...cli]);
    expect(piped.exitCode, piped.stderr).toBe(0);
    expect(await qemuImg('check', join(folder, 'pipe.qcow2'))).toMatch(/No errors/);
    expect(await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', join(folder, 'pipe.qcow2'), image)).toMatch(
      /identical/,
    );
  });

  test('leaves nothing behind when a chunk cannot be read, and names the file', async () => {
    const folder = temporaryFolder(cleanup);
    const store = join(folder, 'store');
    cpSync(albumStore, store, { recursive: true });
    const packfiles = readdirSync(join(store, 'packfiles'), { recursive: true, withFileTypes: true }).filter((one) =>
      one.isFile(),
    );
    const largest = packfiles
      .map((one) => join(one.parentPath, one.name))
      .sort((a, b) => statSync(b).size - statSync(a).size)[0]!;
    const bytes = readFileSync(largest);
    for (let at = 100_000; at < bytes.length / 2; at += 50_000) bytes[at]! ^= 1;
    writeFileSync(largest, bytes);
    const image = join(folder, 'image');
    const failed = await runCli(['export', 'latest', '--store', store, '--to', image, '--no-cache', ...small]);
    expect([failed.exitCode, failed.stderr]).toEqual([65, expect.stringMatching(/\/base\//)]);
    expect(readdirSync(folder)).toEqual(['store']);
  });
});
