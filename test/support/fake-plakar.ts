/**
 * A stand-in for the plakar program whose every move a test commands: each child process that is started with it
 * connects back over a socket, says with what arguments, and does as it is told. No timing: the test decides when a
 * child writes, fails or ends, and learns when that has happened.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ChunkRef, FileRef } from '../../src/core/chunk-store.ts';
import type { Decoder } from '../../src/core/decoder.ts';
import { CorruptStoreError } from '../../src/core/errors.ts';
import type { Log } from '../../src/core/log.ts';
import { equalBytes } from '../../src/core/mac.ts';
import { type Cleanup, temporaryFolder } from './fixtures.ts';

/** Runs in the child. Commands come as lines of JSON; each is answered by a line once it is done. */
const CHILD_PROGRAM = `
const { readFileSync, writeSync } = require('node:fs');
const socket = require('node:net').connect(SOCKET_PATH);
const say = (message) => socket.write(JSON.stringify(message) + '\\n');
const commands = {
  write: ({ data }, done) => process.stdout.write(Buffer.from(data, 'base64'), done),
  complain: ({ data }, done) => process.stderr.write(data, done),
  ignoreTermination: (_, done) => { process.on('SIGTERM', () => say({ terminated: true })); done(); },
  closeOutput: (_, done) => process.stdout.end(done),
  exit: ({ code }) => process.stdout.write('', () => process.exit(code)),
};
process.stdout.on('error', () => process.exit(141));
socket.on('error', () => process.exit(99));
socket.on('close', () => process.exit(99));
// The raw command line: process.argv has lost what is not UTF-8.
const words = readFileSync('/proc/self/cmdline').toString('latin1').split('\\0').slice(0, -1);
say({ pid: process.pid, words, passphrase: process.env.PLAKAR_PASSPHRASE });
require('node:readline').createInterface({ input: socket }).on('line', (line) => {
  const { command, ...parameters } = JSON.parse(line);
  commands[command](parameters, () => say({ done: true }));
});
`;

/** One child process. */
export class FakeChild {
  readonly pid: number;
  /** Arguments behind the program's name; one character a byte. */
  readonly args: readonly string[];
  readonly passphrase: string | undefined;
  /** Settles once the process is gone. */
  readonly gone: Promise<void>;
  /** Settles once it got a SIGTERM that it was told to ignore. */
  readonly terminated: Promise<void>;
  readonly #socket: Socket;
  readonly #pending: (() => void)[] = [];

  constructor(
    socket: Socket,
    lines: AsyncIterator<string>,
    hello: { pid: number; words: string[]; passphrase?: string },
  ) {
    this.#socket = socket;
    // A child that was killed takes no more commands; tests see that by `gone`.
    socket.on('error', () => {});
    this.pid = hello.pid;
    // The interpreter and the script come first.
    this.args = hello.words.slice(2);
    this.passphrase = hello.passphrase;
    let onTerminated = () => {};
    this.terminated = new Promise((resolve) => {
      onTerminated = resolve;
    });
    this.gone = (async () => {
      for (let line = await nextOf(lines); !line.done; line = await nextOf(lines)) {
        const message: { done?: true; terminated?: true } = JSON.parse(line.value);
        if (message.done) this.#pending.shift()?.();
        if (message.terminated) onTerminated();
      }
    })();
  }

  /** What follows `cat`. */
  get operands(): readonly string[] {
    return this.args.slice(this.args.indexOf('cat') + 1);
  }

  /** Settles once the pipe took all of it; never, if nobody reads. */
  write(data: Uint8Array | string): Promise<void> {
    return this.#send({ command: 'write', data: Buffer.from(data).toString('base64') });
  }

  complain(data: string): Promise<void> {
    return this.#send({ command: 'complain', data });
  }

  ignoreTermination(): Promise<void> {
    return this.#send({ command: 'ignoreTermination' });
  }

  closeOutput(): Promise<void> {
    return this.#send({ command: 'closeOutput' });
  }

  async exit(code = 0): Promise<void> {
    void this.#send({ command: 'exit', code });
    await this.gone;
  }

  async finish(...data: Uint8Array[]): Promise<void> {
    for (const piece of data) void this.write(piece);
    await this.exit(0);
  }

  #send(message: object): Promise<void> {
    return new Promise((resolve) => {
      this.#pending.push(resolve);
      this.#socket.write(`${JSON.stringify(message)}\n`);
    });
  }
}

/** The next line; a socket that broke has come to its end, since a child that is killed may reset it. */
async function nextOf(lines: AsyncIterator<string>): Promise<IteratorResult<string>> {
  try {
    return await lines.next();
  } catch (error) {
    if (['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return { done: true, value: undefined };
    throw error;
  }
}

export class FakePlakar {
  /** Path of the program. */
  readonly command: string;
  /** All children so far. */
  readonly children: FakeChild[] = [];
  /** Most children that were there at once. */
  aliveMax = 0;
  #alive = 0;
  readonly #arrived: FakeChild[] = [];
  readonly #expecting: ((child: FakeChild) => void)[] = [];
  #handler: ((child: FakeChild) => Promise<void>) | undefined;

  private constructor(command: string) {
    this.command = command;
  }

  static async start(cleanup: Cleanup): Promise<FakePlakar> {
    const folder = temporaryFolder(cleanup);
    const socketPath = join(folder, 'control');
    const program = `const SOCKET_PATH = ${JSON.stringify(socketPath)};${CHILD_PROGRAM}`;
    const fake = new FakePlakar(writeProgram(folder, `#!${process.execPath}\n${program}`));
    const server = createServer((socket) => void fake.#welcome(socket));
    server.listen(socketPath);
    await once(server, 'listening');
    cleanup.add(() => closeServer(server, fake));
    return fake;
  }

  /** The next child that nobody has got yet. */
  next(): Promise<FakeChild> {
    const child = this.#arrived.shift();
    if (child !== undefined) return Promise.resolve(child);
    return new Promise((resolve) => this.#expecting.push(resolve));
  }

  /** From now on children answer by themselves: each file asked for gets its content. */
  serve(files: readonly FakeFile[]): void {
    const contents = new Map(files.map((file) => [file.operand, file.content]));
    this.#handler = (child) =>
      child.finish(...child.operands.map((operand) => contents.get(operand) ?? Buffer.from('unexpected')));
  }

  /** How many children were asked for this file. */
  startsOf(file: FakeFile): number {
    return this.children.filter(({ operands }) => operands.includes(file.operand)).length;
  }

  async #welcome(socket: Socket): Promise<void> {
    // A child that is killed resets the connection.
    socket.on('error', () => socket.destroy());
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    const hello = await nextOf(lines);
    if (hello.done) return;
    const child = new FakeChild(socket, lines, JSON.parse(hello.value));
    this.children.push(child);
    this.aliveMax = Math.max(this.aliveMax, ++this.#alive);
    void child.gone.then(() => this.#alive--);
    if (this.#handler !== undefined) return void this.#handler(child);
    const expecting = this.#expecting.shift();
    if (expecting !== undefined) expecting(child);
    else this.#arrived.push(child);
  }
}

async function closeServer(server: Server, fake: FakePlakar): Promise<void> {
  server.close();
  for (const child of fake.children) void child.exit(0);
  await Promise.all(fake.children.map(({ gone }) => gone));
}

/** Writes an executable script; returns its path. */
export function writeProgram(folder: string, text: string, mode = 0o755): string {
  const path = join(folder, 'plakar');
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

/** A file whose chunks have SHA-256 for a MAC. */
export interface FakeFile {
  readonly ref: FileRef;
  readonly content: Buffer;
  /** Its argument to `cat`; one character a byte. */
  readonly operand: string;
  chunk(index: number): ChunkRef;
  bytesOf(index: number): Buffer;
}

export const fakeSnapshotId = '6300a0a8'.padEnd(64, '0');

export function fakeFile(path: string | Uint8Array, chunks: readonly (Uint8Array | string)[]): FakeFile {
  const pathBytes = Buffer.from(path);
  const parts = chunks.map((chunk) => Buffer.from(chunk));
  const refs: ChunkRef[] = [];
  const ref: FileRef = { snapshotId: fakeSnapshotId, path: pathBytes, chunks: refs };
  for (const [indexInFile, part] of parts.entries()) {
    refs.push({ mac: sha256(part), lengthBytes: part.byteLength, file: ref, indexInFile });
  }
  return {
    ref,
    content: Buffer.concat(parts),
    operand: `${fakeSnapshotId}:${pathBytes.toString('latin1')}`,
    chunk: (index) => refs[index]!,
    bytesOf: (index) => parts[index]!,
  };
}

/** A file of `count` chunks of `chunkBytes` each, all different, and different from those of other paths. */
export function fakeLongFile(path: string, count: number, chunkBytes: number): FakeFile {
  return fakeFile(
    path,
    Array.from({ length: count }, (_, index) => Buffer.alloc(chunkBytes, `${path} ${index} `)),
  );
}

function sha256(data: Uint8Array): Buffer {
  return createHash('sha256').update(data).digest();
}

/** SHA-256 as the MAC; nothing is stored encoded. */
export const testDecoder: Decoder = {
  async decode(stored, { mac }) {
    await this.verify(stored, mac);
    return stored;
  },
  async verify(plain, mac) {
    if (!equalBytes(sha256(plain), mac)) throw new CorruptStoreError('the MAC does not match');
  },
  async close() {},
};

/** A log that a test can read. */
export class LogRecorder implements Log {
  readonly lines: { readonly level: keyof Log; readonly fields: object; readonly message: string }[] = [];

  debug(fields: object, message: string): void {
    this.lines.push({ level: 'debug', fields, message });
  }

  info(fields: object, message: string): void {
    this.lines.push({ level: 'info', fields, message });
  }

  warn(fields: object, message: string): void {
    this.lines.push({ level: 'warn', fields, message });
  }

  error(fields: object, message: string): void {
    this.lines.push({ level: 'error', fields, message });
  }

  messages(level: keyof Log): string[] {
    return this.lines.filter((line) => line.level === level).map(({ message }) => message);
  }
}
