/** A supervisor on real sockets whose workers are servers of the test's own: they haggle, and leave the rest to the test. */
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import {
  commands,
  IHAVEOPT,
  NBD_REP_MAGIC,
  NBDMAGIC,
  nbdClientFlags,
  nbdGreeting,
  nbdInfoExport,
  nbdOption,
  nbdOptionReply,
  nbdRequest,
  optionReplies,
  options,
} from '../../../src/nbd/protocol.ts';
import type { SuperviseLimits } from '../../../src/supervise/limits.ts';
import { Supervisor, type SupervisorOptions } from '../../../src/supervise/supervisor.ts';
import type { Worker, WorkerEnd } from '../../../src/supervise/worker-process.ts';
import { type Cleanup, temporaryFolder } from '../../support/fixtures.ts';
import type { LogLine } from '../../support/nbd-fixture.ts';

/** What differs from a worker that has one disk of 1 MiB, "disk", and answers every handshake. By generation, from 1. */
export interface Script {
  readonly isReady?: (generation: number) => boolean;
  readonly answersGo?: (generation: number) => boolean;
  readonly sizeOf?: (generation: number) => number;
  readonly deviceOf?: (generation: number) => string | undefined;
}

export interface SeenRequest {
  /** Header and payload. */
  readonly bytes: Buffer;
  readonly type: number;
  readonly cookie: Uint8Array;
  readonly length: number;
  readonly payload: Buffer;
}

/** Things that happen, each waited for by its place in the row. */
class Row<T> {
  readonly items: T[] = [];
  #waiting: (() => void)[] = [];

  push(item: T): void {
    this.items.push(item);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async find(matches: (item: T, index: number) => boolean): Promise<T> {
    for (;;) {
      const found = this.items.find(matches);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }
}

/** The worker's end of one connection. */
export class WorkerConnection {
  readonly closed: Promise<void>;
  readonly attached: Promise<this>;
  readonly #options = new Row<number>();
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #wake: (() => void) | undefined;

  constructor(socket: Socket, script: { readonly size: number; readonly answersGo: boolean }) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    socket.on('error', () => socket.destroy());
    this.closed = new Promise((resolve) => {
      const end = () => {
        socket.destroy();
        resolve();
      };
      socket.once('end', end);
      socket.once('close', end);
    });
    this.attached = this.#haggle(script).then(() => this);
  }

  /** Options so far. */
  get options(): readonly number[] {
    return this.#options.items;
  }

  get pendingBytes(): number {
    return this.#received.length;
  }

  async sawOption(option: number): Promise<void> {
    await this.#options.find((seen) => seen === option);
  }

  /** The next `length` bytes; waits for ever if they do not come. */
  async receive(length: number): Promise<Buffer> {
    while (this.#received.length < length) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const bytes = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  async request(): Promise<SeenRequest> {
    const header = await this.receive(nbdRequest.sizeBytes);
    const { type, cookie, length } = nbdRequest.read(header);
    const payload = await this.receive(type === commands.NBD_CMD_WRITE ? length : 0);
    return { bytes: Buffer.concat([header, payload]), type, cookie, length, payload };
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async #haggle({ size, answersGo }: { readonly size: number; readonly answersGo: boolean }): Promise<void> {
    this.send(nbdGreeting.encode({ nbdmagic: NBDMAGIC, ihaveopt: IHAVEOPT, handshakeFlags: 3 }));
    await this.receive(nbdClientFlags.sizeBytes);
    for (;;) {
      const { option, length } = nbdOption.read(await this.receive(nbdOption.sizeBytes));
      await this.receive(length);
      this.#options.push(option);
      const isGo = option === options.NBD_OPT_GO;
      if (isGo && !answersGo) return new Promise(() => {});
      if (isGo) this.#answer(option, optionReplies.NBD_REP_INFO, nbdInfoExport.encode({ size: BigInt(size) }));
      const isKnown = isGo || option === options.NBD_OPT_STRUCTURED_REPLY;
      this.#answer(option, isKnown ? optionReplies.NBD_REP_ACK : optionReplies.NBD_REP_ERR_UNSUP);
      if (isGo) return;
    }
  }

  #answer(option: number, reply: number, data: Uint8Array = new Uint8Array(0)): void {
    this.send(nbdOptionReply.encode({ magic: NBD_REP_MAGIC, option, reply, length: data.byteLength }));
    this.send(data);
  }
}

export class ScriptedWorker implements Worker {
  readonly pid = undefined;
  readonly socketPath: string;
  readonly ready: Promise<boolean>;
  readonly ended: Promise<WorkerEnd>;
  readonly signals: NodeJS.Signals[] = [];
  readonly #connections = new Row<WorkerConnection>();
  readonly #server: Server;
  readonly #device: string | undefined;
  readonly #isReady: boolean;
  #becomeReady: (isReady: boolean) => void = () => {};
  #end: (end: WorkerEnd) => void = () => {};

  constructor(socketPath: string, generation: number, script: Script) {
    this.socketPath = socketPath;
    const { isReady, answersGo, sizeOf, deviceOf } = script;
    this.#isReady = isReady?.(generation) ?? true;
    this.#device = deviceOf === undefined ? 'device' : deviceOf(generation);
    const session = { size: sizeOf?.(generation) ?? 1024 * 1024, answersGo: answersGo?.(generation) ?? true };
    this.#server = createServer({ allowHalfOpen: true }, (socket) =>
      this.#connections.push(new WorkerConnection(socket, session)),
    );
    this.ready = new Promise((resolve) => {
      this.#becomeReady = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get connections(): readonly WorkerConnection[] {
    return this.#connections.items;
  }

  /** The first connection, from its beginning on. */
  accepted(): Promise<WorkerConnection> {
    return this.#connections.find(() => true);
  }

  /** The first connection, when it is past its handshake. */
  async attached(): Promise<WorkerConnection> {
    return (await this.accepted()).attached;
  }

  die({ exitCode = undefined as number | undefined, lastLines = '', leavesSockets = false } = {}): void {
    this.#server.close();
    if (!leavesSockets) for (const connection of this.connections) connection.destroy();
    this.#becomeReady(false);
    this.#end({ exitCode, signal: exitCode === undefined ? 'SIGKILL' : undefined, lastLines });
  }

  begin(): void {
    if (this.#isReady) this.#server.listen(this.socketPath, () => this.#becomeReady(true));
  }

  async identify(name: string) {
    if (name !== 'disk' || this.#device === undefined) return undefined;
    return { deviceId: this.#device, name, readOnly: false };
  }

  kill(signal: NodeJS.Signals): void {
    this.signals.push(signal);
    if (signal === 'SIGKILL') this.die();
  }
}

/** A supervisor that listens on a free port and a Unix socket, and its workers as they are started. */
export async function startSupervised(
  cleanup: Cleanup,
  script: Script = {},
  limits: Partial<SuperviseLimits> = {},
  options: Partial<SupervisorOptions> = {},
) {
  const folder = temporaryFolder(cleanup);
  const workers = new Row<ScriptedWorker>();
  const log: LogLine[] = [];
  const keep = (level: LogLine['level']) => (fields: object, message: string) =>
    void log.push({ level, message, fields });
  const supervisor = new Supervisor({
    log: { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') },
    shared: false,
    limits,
    ...options,
    startWorker(generation) {
      const worker = new ScriptedWorker(join(folder, `${generation}.sock`), generation, script);
      workers.push(worker);
      return worker;
    },
  });
  const { uri } = await supervisor.listen({ host: '127.0.0.1', port: 0 });
  const { uri: unixUri } = await supervisor.listen({ path: join(folder, 'public.sock') });
  const exitCode = supervisor.run(() => {});
  cleanup.add(async () => {
    supervisor.stop();
    for (const worker of workers.items) worker.die();
    await exitCode;
  });
  const worker = async (generation: number) => {
    await workers.find((_, index) => index === generation - 1);
    return workers.items[generation - 1]!;
  };
  return { uri, unixUri, supervisor, exitCode, log, worker };
}
