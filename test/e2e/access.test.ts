/** Who may connect, and where: the command line as an operator uses it. */
import { execFileSync, spawn } from 'node:child_process';
import { cpSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { builtCli, mustRun, type RunningServer, run, runCli, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterAll, cleanupAfterEach, storePath, temporaryFolder } from '../support/fixtures.ts';
import { commandPath, findPythonWithLibnbd, requires } from '../support/requires.ts';
import { makeTlsFiles, type TlsFiles } from '../support/tls-files.ts';

/** Of the store `encrypted-scrypt`. */
const PASSPHRASE = 'fixture passphrase 2';
const cleanup = cleanupAfterEach();
const keep = cleanupAfterAll();
const album = ['latest', '--store', albumStore, '--free', '64M'];
let files: TlsFiles;
beforeAll(() => {
  if (!requires('openssl').missing) files = makeTlsFiles(keep);
});

/** An address of this machine that others may reach; undefined if it has none. */
const ownAddress = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;

const portOf = (uri: string) => new URL(uri.replace(/^nbds?:/, 'http:')).port;
const sizeBy = (uri: string) => run(commandPath('nbdinfo'), ['--size', uri]);

/** What the server has warned of, when it has ended. */
async function warningsOf(server: RunningServer): Promise<readonly string[]> {
  expect((await server.stop()).exitCode).toBe(0);
  const own = server.log.filter(({ level, msg }) => level === 40 && !msg.startsWith('Snapshot'));
  return own.map(({ msg }) => msg);
}

/** Runs Python statements with libnbd's handle `h` connected to a URI that names files of the client's. */
async function withTls(uri: string, code: string): Promise<string> {
  const connect = `import nbd\nh = nbd.NBD()\nh.set_uri_allow_local_file(True)\nh.connect_uri(${JSON.stringify(uri)})\n`;
  return (await mustRun(findPythonWithLibnbd()!, ['-c', connect + code])).trim();
}

async function refusal(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runCli(['serve', ...album, ...args]);
  expect([exitCode, stdout]).toEqual([64, '']);
  const last = stderr.trim().split('\n').at(-1)!;
  expect(last).toMatch(/^kloset-nbd: /);
  return last;
}

describe('addresses that other machines reach', () => {
  test.each(['tcp://0.0.0.0:0', 'tcp://[::]:0'])('%s is refused without TLS for all', async (address) => {
    const message = await refusal('--listen', address);
    for (const part of [address, '--tls require', '--insecure', 'Unix socket']) expect(message).toContain(part);
  });

  test('with --insecure they are listened on, and warned of', async () => {
    const server = await startServer(cleanup, [...album, '--listen', 'tcp://0.0.0.0:0', '--insecure']);
    expect(await warningsOf(server)).toEqual([
      expect.stringContaining('without TLS: whoever gets there has the disks'),
    ]);
  });

  test('loopback is the default, and nothing is said about it', async () => {
    const server = await startServer(cleanup, [...album, '--listen', 'tcp://localhost:0']);
    expect(await warningsOf(server)).toEqual([]);
  });

  const need = requires('openssl', 'nbdinfo');
  test.skipIf(need.missing)(
    need.title('with TLS for all they are listened on; offering it is not enough'),
    async () => {
      const tls = ['--tls-certificates', files.folder];
      expect(await refusal('--listen', 'tcp://0.0.0.0:0', ...tls)).toContain('--tls require');
      const server = await startServer(cleanup, [...album, '--listen', 'tcp://0.0.0.0:0', ...tls, '--tls', 'require']);
      expect(server.uris[0]).toMatch(/^nbds:\/\/0\.0\.0\.0:\d+\/$/);
      const port = portOf(server.uris[0]!);
      expect((await sizeBy(`nbds://localhost:${port}/?tls-certificates=${files.folder}`)).stderr).toBe('');
      expect(await warningsOf(server)).toEqual([expect.stringContaining('asks nobody who they are')]);
      const other = [...album, '--listen', 'tcp://0.0.0.0:0', '--tls', 'require', '--tls-psk', files.psk];
      expect(await warningsOf(await startServer(cleanup, other))).toEqual([]);
    },
  );
});

describe('options that do not go together', () => {
  test.each<[string, readonly string[]]>([
    ['--tls require needs', ['--tls', 'require']],
    ['--tls on needs', ['--tls', 'on']],
    ['--tls-verify-peer needs', ['--tls-verify-peer']],
    ['server-cert.pem (ENOENT)', ['--tls-certificates', '/nonexistent']],
    ['write an address or a network', ['--allow', '10.0.0.0/33']],
    ['write the number of a descriptor', ['--fd', 'three']],
    ['descriptor 97', ['--fd', '97']],
    ['descriptor 0 is no socket', ['--fd', '0']],
  ])('%s', async (message, args) => expect(await refusal(...args)).toContain(message));
});

describe('an encrypted store', () => {
  const encrypted = ['latest', '--store', storePath('encrypted-scrypt')];
  const serve = (...args: readonly string[]) => {
    const keyfile = join(temporaryFolder(cleanup), 'key');
    writeFileSync(keyfile, PASSPHRASE);
    return startServer(cleanup, [...encrypted, '--keyfile', keyfile, ...args]);
  };
  const warning = expect.stringContaining('The store is encrypted, its disks are not');

  test('warns over TCP, supervised or not, and not on a Unix socket', async () => {
    const folder = temporaryFolder(cleanup);
    const unix = ['--listen', `unix:${join(folder, 's')}`];
    const supervised = ['--supervise', '--overlay', join(folder, 'overlay')];
    expect(await warningsOf(await serve())).toEqual([warning]);
    expect(await warningsOf(await serve(...unix))).toEqual([]);
    expect(await warningsOf(await serve(...supervised))).toEqual([warning]);
    expect(await warningsOf(await serve(...supervised, ...unix))).toEqual([]);
  });

  const need = requires('openssl');
  test.skipIf(need.missing)(need.title('does not warn where TLS is required'), async () => {
    expect(await warningsOf(await serve('--tls-psk', files.psk, '--tls', 'require'))).toEqual([]);
    expect(await warningsOf(await serve('--tls-psk', files.psk))).toEqual([warning]);
  });

  test('supervised, a key file is read once: a pipe does', async () => {
    const folder = temporaryFolder(cleanup);
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const writer = spawn('sh', ['-c', 'cat > "$1"', 'sh', pipe], { stdio: ['pipe', 'ignore', 'ignore'] });
    writer.stdin.end(PASSPHRASE);
    const overlay = ['--supervise', '--overlay', join(folder, 'overlay')];
    const server = await startServer(cleanup, [...encrypted, '--keyfile', pipe, ...overlay]);
    const [worker] = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8').trim().split(' ');
    process.kill(Number(worker), 'SIGKILL');
    await server.waitForLog(({ msg }) => msg === 'A new worker serves.');
    expect((await server.stop()).exitCode).toBe(0);
  });

  test('supervised, a wrong passphrase is told once, with its exit code', async () => {
    const folder = temporaryFolder(cleanup);
    writeFileSync(join(folder, 'key'), 'wrong');
    const overlay = ['--supervise', '--overlay', join(folder, 'overlay')];
    const supervised = ['serve', ...encrypted, '--listen', 'tcp://127.0.0.1:0', ...overlay];
    expect((await runCli([...supervised, '--keyfile', join(folder, 'key')])).exitCode).toBe(77);
    expect((await runCli([...supervised, '--keyfile', join(folder, 'none')])).exitCode).toBe(77);
    expect((await runCli(supervised)).exitCode).toBe(77);
  });
});

const needNbdinfo = requires('nbdinfo');
describe.skipIf(needNbdinfo.missing)(needNbdinfo.title('--allow'), () => {
  test('closes what comes from elsewhere with one line, and lets Unix sockets be', async () => {
    const folder = temporaryFolder(cleanup);
    const listen = ['--listen', 'tcp://127.0.0.1:0', '--listen', `unix:${join(folder, 's')}`];
    const server = await startServer(cleanup, [...album, ...listen, '--allow', '10.0.0.0/8', '--allow', '::1']);
    for (let i = 0; i < 5; i++) expect((await sizeBy(server.uris[0]!)).exitCode).toBe(1);
    expect((await sizeBy(server.uris[1]!)).exitCode).toBe(0);
    expect(statSync(join(folder, 's')).mode & 0o777).toBe(0o600);
    expect(await warningsOf(server)).toEqual(['connection refused: no --allow has this address']);
  });

  test.skipIf(ownAddress === undefined)('lets in the network it names', async () => {
    const args = [...album, '--listen', 'tcp://0.0.0.0:0', '--insecure', '--allow', `${ownAddress}/32`];
    const server = await startServer(cleanup, args);
    const port = portOf(server.uris[0]!);
    expect((await sizeBy(`nbd://${ownAddress}:${port}/`)).exitCode).toBe(0);
    expect((await sizeBy(`nbd://127.0.0.1:${port}/`)).exitCode).toBe(1);
  });
});

const needTls = requires('openssl', 'nbdinfo', 'python3-libnbd');
describe.skipIf(needTls.missing)(needTls.title('SIGHUP'), () => {
  test.each([
    ['the server', []],
    ['its supervisor', ['--supervise']],
  ])('has %s read certificates and keys again, while clients go on', async (_, more) => {
    const folder = temporaryFolder(cleanup);
    const tls = join(folder, 'tls');
    cpSync(files.folder, tls, { recursive: true });
    const overlay = ['--overlay', join(folder, 'overlay'), ...more];
    const options = ['--tls', 'require', '--tls-certificates', tls, '--tls-psk', join(tls, 'keys.psk')];
    const server = await startServer(cleanup, [...album, ...overlay, ...options]);
    const port = portOf(server.uris[0]!);
    const certified = `nbds://localhost:${port}/?tls-certificates=${files.folder}`;
    const others = makeTlsFiles(cleanup);
    const keyed = `nbds://alice@localhost:${port}/?tls-psk-file=${others.psk}`;
    const reload = async (line: string) => {
      const before = server.log.length;
      server.kill('SIGHUP');
      await server.waitForLog((entry) => server.log.indexOf(entry) >= before && entry.msg.includes(line));
    };
    expect([(await sizeBy(certified)).exitCode, (await sizeBy(keyed)).exitCode]).toEqual([0, 1]);
    writeFileSync(join(tls, 'server-cert.pem'), 'half a certifi');
    await reload('stay in use');
    expect((await sizeBy(certified)).exitCode).toBe(0);
    // A client that is there when the new ones come goes on; `sh` tells it when.
    const go = join(folder, 'go');
    const staying = withTls(
      certified,
      `import os, time
assert h.pread(512, 0)
open(${JSON.stringify(`${go}-ready`)}, "w").close()
while not os.path.exists(${JSON.stringify(go)}): time.sleep(0.02)
print(len(h.pread(512, 0)))`,
    );
    await untilThere(`${go}-ready`);
    cpSync(others.folder, tls, { recursive: true });
    await reload('Read the TLS credentials again');
    expect([(await sizeBy(certified)).exitCode, (await sizeBy(keyed)).exitCode]).toEqual([1, 0]);
    writeFileSync(go, '');
    expect(await staying).toBe('512');
    expect((await server.stop()).exitCode).toBe(0);
  });
});

describe.skipIf(needTls.missing)(needTls.title('TLS with --supervise'), () => {
  test('a client writes and reads on while workers are killed', async () => {
    const overlay = join(temporaryFolder(cleanup), 'overlay');
    const tls = ['--tls', 'require', '--tls-psk', files.psk, '--tls-certificates', files.folder, '--tls-verify-peer'];
    const server = await startServer(cleanup, [...album, '--supervise', '--overlay', overlay, ...tls]);
    const port = portOf(server.uris[0]!);
    const code = `
import os, random
random.seed(3)
def worker():
    while True:
        children = open("/proc/${server.pid}/task/${server.pid}/children").read().split()
        if children: return int(children[0])
base = h.get_size() - 32 * 1024 * 1024
for kill in range(3):
    data = random.randbytes(4 << 20)
    buffer = nbd.Buffer.from_bytearray(bytearray(data))
    waiting = [h.aio_pwrite(buffer, base), h.aio_flush()]
    os.kill(worker(), 9)
    while waiting:
        h.poll(-1)
        waiting = [c for c in waiting if not h.aio_command_completed(c)]
    assert h.pread(4 << 20, base) == data
print(h.get_tls_negotiated())`;
    expect(await withTls(`nbds://alice@localhost:${port}/?tls-psk-file=${files.psk}`, code)).toBe('True');
    expect((await sizeBy(`nbd://localhost:${port}/`)).exitCode).toBe(1);
    expect((await server.stop()).exitCode).toBe(0);
  });
});

const needPython = requires('nbdinfo', 'python3-libnbd');
describe.skipIf(needPython.missing)(needPython.title('sockets handed over'), () => {
  const serve = [process.execPath, builtCli, 'serve', ...album, '--log-level', 'warn'];
  const both = (): [string, readonly string[]][] => [
    ['by itself', []],
    ['supervised', ['--supervise', '--overlay', join(temporaryFolder(cleanup), 'overlay')]],
  ];

  test('libnbd starts the server with a socket that listens', async () => {
    for (const [, more] of both()) {
      const output = await mustRun(commandPath('nbdinfo'), ['--json', '--', '[', ...serve, ...more, ']']);
      expect(JSON.parse(output.slice(output.indexOf('{'))).exports).toHaveLength(1);
      expect(output).toMatch(/^ready nbd\+unix:\/\/\/\?socket=\/\S+$/m);
    }
  });

  /** Starts the server with sockets of the kinds, as systemd does, and says how it ended and what it printed. */
  const launch = (code: string, ...args: readonly string[]) => {
    const script = `
import nbd, os, socket, subprocess, sys, tempfile
command = sys.argv[1:]
folder = tempfile.mkdtemp()
def start(sockets, names=None):
    fds = [s.fileno() for s in sockets]
    def place():
        # From 3 on, in order; first all out of the way.
        high = [os.dup2(fd, 50 + i, inheritable=False) for i, fd in enumerate(fds)]
        for i, fd in enumerate(high): os.dup2(fd, 3 + i)
    environment = dict(os.environ, LISTEN_FDS=str(len(fds)))
    if names: environment["LISTEN_FDNAMES"] = names
    shell = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"]
    return subprocess.Popen(shell + command, env=environment, preexec_fn=place, close_fds=False, stdout=subprocess.PIPE, text=True)
def size(**kw):
    h = nbd.NBD()
    if "uri" in kw: h.connect_uri(kw["uri"])
    else: h.connect_socket(kw["fd"])
    n = h.get_size(); h.shutdown(); return n
${code}
os.rmdir(folder)
`;
    return mustRun(findPythonWithLibnbd()!, ['-c', script, ...serve, ...args]);
  };

  test('systemd’s way: TCP and Unix sockets in one process; the Unix socket stays where it is', async () => {
    for (const [, more] of both()) {
      const output = await launch(
        `
tcp = socket.socket(); tcp.bind(("127.0.0.1", 0)); tcp.listen()
unix = socket.socket(socket.AF_UNIX); unix.bind(folder + "/s"); unix.listen()
server = start([tcp, unix], "one:two")
lines = [server.stdout.readline().strip() for _ in range(2)]
assert lines == ["ready nbd://127.0.0.1:%d/" % tcp.getsockname()[1], "ready nbd+unix:///?socket=%s/s" % folder], lines
assert size(uri=lines[0][6:]) == size(uri=lines[1][6:]) > 0
server.terminate(); assert server.wait() == 0
os.unlink(folder + "/s")
print("fine")`,
        ...more,
      );
      expect(output).toBe('fine\n');
    }
  });

  test('one connection, as --fd and as systemd’s Accept=yes: the server ends with it', async () => {
    for (const [, more] of both()) {
      const output = await launch(
        `
ours, theirs = socket.socketpair()
server = start([theirs], "connection"); theirs.close()
assert size(fd=ours.detach()) > 0
assert server.wait() == 0 and server.stdout.read() == ""
ours, theirs = socket.socketpair()
server = subprocess.Popen(command + ["--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()]); theirs.close()
assert size(fd=ours.detach()) > 0
assert server.wait() == 0
ours, theirs = socket.socketpair()
server = subprocess.Popen(command + ["--fd", "0"], stdin=theirs); theirs.close()
ours.close()
assert server.wait() == 0
print("fine")`,
        ...more,
      );
      expect(output).toBe('fine\n');
    }
  });

  test('a socket that other machines reach is refused without TLS for all', async () => {
    const output = await launch(`
tcp = socket.socket(); tcp.bind(("0.0.0.0", 0)); tcp.listen()
server = start([tcp]); print(server.wait(), server.stdout.read())`);
    expect(output.trim()).toBe('64');
  });
});

/** Resolves once the file is there, which another process makes. */
async function untilThere(path: string): Promise<void> {
  while (!statSync(path, { throwIfNoEntry: false })) await new Promise((resolve) => setTimeout(resolve, 20));
}
