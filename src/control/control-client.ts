import { connect, type Socket } from 'node:net';
import { StoreUnavailableError, UnsupportedError } from '../core/errors.ts';
import { type Outcome, resultOf } from '../core/outcome.ts';
import {
  CONTROL_PROTOCOL,
  type ControlArguments,
  type ControlGreeting,
  type ControlReply,
  REPLY_LINE_BYTES_MAX,
} from './control-protocol.ts';
import { LineReader } from './line-reader.ts';

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** Codes that mean: nobody is there. */
const absentCodes: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ECONNREFUSED', 'ENOTDIR']);

/** The other side of a ControlServer. */
export class ControlClient {
  readonly #socket: Socket;
  readonly #reader = new LineReader(REPLY_LINE_BYTES_MAX);
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  /** A reply whose bytes are still coming. */
  #bytesFor: { readonly id: number; readonly bytes: number } | undefined;
  #greeted: ((greeting: ControlGreeting) => void) | undefined;
  #failure: Error | undefined;
  #pid = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (piece) => this.#receive(piece));
    socket.on('close', () => this.#fail(new StoreUnavailableError('the server ended while it was being asked')));
    socket.on('error', () => undefined); // 'close' follows.
  }

  /** Resolves to undefined if nobody listens on that socket. Rejects with UnsupportedError for another version's server. */
  static async connect(path: string): Promise<ControlClient | undefined> {
    const socket = connect({ path });
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('error', reject);
      });
    } catch (error) {
      if (absentCodes.has((error as NodeJS.ErrnoException).code)) return undefined;
      throw error;
    }
    const client = new ControlClient(socket);
    const { protocol, pid } = await new Promise<ControlGreeting>((resolve, reject) => {
      client.#greeted = resolve;
      socket.once('close', () => reject(new StoreUnavailableError('the server ended while it was being asked')));
    });
    client.#pid = pid;
    if (protocol === CONTROL_PROTOCOL) return client;
    client.close();
    throw new UnsupportedError(`the running server (process ${pid}) speaks another version of the control protocol`);
  }

  /** The server's process. */
  get pid(): number {
    return this.#pid;
  }

  /** Resolves to the result: JSON, or a Buffer. Rejects with the error the server had, or StoreUnavailableError if it ended. */
  call(command: string, given: ControlArguments = {}): Promise<unknown> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ id, command, arguments: given })}\n`);
    });
  }

  close(): void {
    this.#socket.end();
  }

  #receive(piece: Buffer): void {
    this.#reader.push(piece);
    try {
      while (this.#take());
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
      this.#socket.destroy();
    }
  }

  /** Whether there was something to take. */
  #take(): boolean {
    if (this.#bytesFor !== undefined) {
      const { id, bytes } = this.#bytesFor;
      const data = this.#reader.bytes(bytes);
      if (data === undefined) return false;
      this.#bytesFor = undefined;
      this.#settle(id, { value: data });
      return true;
    }
    const line = this.#reader.line();
    if (line === undefined) return false;
    if (this.#greeted !== undefined) {
      this.#greeted(JSON.parse(line) as ControlGreeting);
      this.#greeted = undefined;
      return true;
    }
    const reply = JSON.parse(line) as ControlReply;
    if ('bytes' in reply) this.#bytesFor = reply;
    else this.#settle(reply.id, 'code' in reply ? reply : { value: 'value' in reply ? reply.value : undefined });
    return true;
  }

  #settle(id: number, outcome: Outcome<unknown>): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    try {
      waiting?.resolve(resultOf(outcome));
    } catch (error) {
      waiting?.reject(error);
    }
  }

  #fail(error: Error): void {
    this.#failure = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
