import type { Socket } from 'node:net';
import { Closers } from '../core/closers.ts';
import { AssertionError, UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { outcomeOf } from '../core/outcome.ts';
import { type Listener, listen } from '../nbd/listener.ts';
import {
  CONTROL_PROTOCOL,
  type ControlArguments,
  type ControlGreeting,
  type ControlReply,
  type ControlRequest,
  REQUEST_LINE_BYTES_MAX,
  REQUESTS_IN_FLIGHT_MAX,
} from './control-protocol.ts';
import { LineReader } from './line-reader.ts';

/** One connection, as commands see it. */
export interface ControlSession {
  /** Runs when the connection ends, unless it ran before. */
  onEnd(close: () => Promise<void>): void;
}

/** Resolves to plain JSON, or to bytes. Rejects with the errors of core/errors.ts; anything else is a bug. */
export type ControlCommand = (given: ControlArguments, session: ControlSession) => Promise<unknown>;

export interface ControlServerOptions {
  /** Of the socket, which is made. */
  readonly path: string;
  readonly commands: Readonly<Record<string, ControlCommand>>;
  readonly log: Log;
  /** A command has found a bug. */
  readonly onBug: (error: unknown) => void;
}

/** Answers what other processes of the same user ask: control-protocol.ts. */
export class ControlServer {
  readonly #connections = new Set<ControlConnection>();
  #listener: Listener | undefined;

  private constructor() {}

  /** Rejects with UserError if the socket cannot be made, or somebody answers on it. */
  static async listen(options: ControlServerOptions): Promise<ControlServer> {
    const server = new ControlServer();
    const accept = (socket: Socket) => {
      const connection = new ControlConnection(socket, options, () => server.#connections.delete(connection));
      server.#connections.add(connection);
    };
    server.#listener = await listen({ path: options.path }, { tlsRequired: false, accept });
    return server;
  }

  /** Ends all connections, once what they have asked for is done, and removes the socket. */
  async close(): Promise<void> {
    this.#listener?.close();
    await Promise.all([...this.#connections].map((connection) => connection.close()));
  }
}

class ControlConnection implements ControlSession {
  readonly #socket: Socket;
  readonly #options: ControlServerOptions;
  readonly #reader = new LineReader(REQUEST_LINE_BYTES_MAX);
  readonly #held = new Closers();
  readonly #ended: Promise<void>;
  #inFlight = 0;
  #idle: (() => void) | undefined;

  constructor(socket: Socket, options: ControlServerOptions, done: () => void) {
    this.#socket = socket;
    this.#options = options;
    const greeting: ControlGreeting = { protocol: CONTROL_PROTOCOL, pid: process.pid };
    socket.write(`${JSON.stringify(greeting)}\n`);
    socket.on('data', (piece) => this.#receive(piece));
    socket.on('end', () => socket.end());
    socket.on('error', (error) => options.log.debug({ error: error.message }, 'a control connection failed'));
    this.#ended = new Promise((resolve) => {
      socket.on('close', () => {
        this.#giveBack().finally(() => {
          done();
          resolve();
        });
      });
    });
  }

  onEnd(close: () => Promise<void>): void {
    this.#held.add(close);
  }

  async close(): Promise<void> {
    this.#socket.pause();
    await this.#untilIdle();
    this.#socket.end();
    this.#socket.destroySoon();
    await this.#ended;
  }

  async #giveBack(): Promise<void> {
    await this.#untilIdle();
    await this.#held.close().catch((error: unknown) => this.#options.log.warn({ error }, 'a view did not close'));
  }

  async #untilIdle(): Promise<void> {
    while (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        const before = this.#idle;
        this.#idle = () => {
          before?.();
          resolve();
        };
      });
    }
  }

  #receive(piece: Buffer): void {
    this.#reader.push(piece);
    this.#readOn();
  }

  /** Takes the requests that have come, as long as not too many are being worked on. */
  #readOn(): void {
    if (this.#socket.destroyed) return;
    try {
      while (this.#inFlight < REQUESTS_IN_FLIGHT_MAX) {
        const line = this.#reader.line();
        if (line === undefined) {
          this.#socket.resume();
          return;
        }
        this.#answer(parseRequest(line)).catch(this.#options.onBug);
      }
      this.#socket.pause();
    } catch (error) {
      this.#options.log.warn({ error: String(error) }, 'a control connection sends what is no request');
      this.#socket.destroy();
    }
  }

  async #answer({ id, command, arguments: given }: ControlRequest): Promise<void> {
    this.#inFlight++;
    try {
      const { commands, onBug } = this.#options;
      const run = Object.hasOwn(commands, command) ? commands[command] : undefined;
      const outcome = await outcomeOf(async () => {
        if (run === undefined) throw new UserError(`The server does not know "${command}": is it of another version?`);
        return run(given, this);
      });
      if ('code' in outcome && outcome.code === 'ASSERTION') onBug(new AssertionError(outcome.message));
      if ('value' in outcome && outcome.value instanceof Uint8Array)
        await this.#send({ id, bytes: outcome.value.length }, outcome.value);
      else await this.#send({ id, ...outcome });
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) {
        this.#idle?.();
        this.#idle = undefined;
      }
      this.#readOn();
    }
  }

  /** Resolves when the client has taken it, or is gone. */
  #send(reply: ControlReply, bytes?: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      if (this.#socket.destroyed) return resolve();
      this.#socket.cork();
      this.#socket.write(`${JSON.stringify(reply)}\n`, () => bytes === undefined && resolve());
      if (bytes !== undefined) this.#socket.write(bytes, () => resolve());
      this.#socket.uncork();
    });
  }
}

/** Throws SyntaxError or TypeError for what is no request. */
function parseRequest(line: string): ControlRequest {
  const request: unknown = JSON.parse(line);
  if (typeof request !== 'object' || request === null) throw new TypeError('a request is an object');
  const { id, command, arguments: given = {} } = request as Partial<ControlRequest>;
  const isRequest =
    typeof id === 'number' && typeof command === 'string' && typeof given === 'object' && given !== null;
  if (!isRequest) throw new TypeError('a request has an id, a command and arguments');
  return { id, command, arguments: given };
}
