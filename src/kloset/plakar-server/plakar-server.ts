import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { exitCodes, UserError } from '../../core/errors.ts';
import { type Log, silentLog } from '../../core/log.ts';
import { programFile } from '../../core/program-file.ts';
import { allowanceAdvice, chooseIsolation, type Isolation, isOnPath, openLoopback, TETHER } from './isolation.ts';
import { RESTART_MS_FIRST, RESTART_MS_MAX, STOP_MS_MAX } from './limits.ts';
import type { RelayEvent, RelayOrders } from './messages.ts';

export interface PlakarServerOptions {
  /** The program. */
  readonly plakar: string;
  /** What follows plakar's `at`. */
  readonly location: string;
  /** The store is not on this machine. */
  readonly needsNetwork: boolean;
  /** Goes on without a namespace where there cannot be one. */
  readonly allowOpenLoopback: boolean;
  readonly log?: Log | undefined;
}

/** The first thing that is known of a relay and its plakar; `unborn`: there is no namespace. */
type Outcome = Exclude<RelayEvent, { event: 'hello' }> | { readonly event: 'unborn'; readonly why: string };

/** A relay, with what gives its namespace a network. */
interface Running {
  readonly relay: ChildProcess;
  readonly helper: ChildProcess | undefined;
}

/**
 * A `plakar server` of our own, for stores that only plakar can open, where nobody else reaches its port: in a network
 * namespace, behind a relay on a Unix socket (relay.ts). It is started again when it dies, and ends with this process,
 * however that ends: the relay sees the end of its input, and whatever is beside it in its PID namespace goes with it.
 */
export class PlakarServer {
  /** An HTTP server that passes GET on to plakar; 0600 in a directory of 0700. */
  readonly socketPath: string;
  readonly #options: PlakarServerOptions;
  readonly #directory: string;
  readonly #log: Log;
  #isolation: Isolation;
  #running: Running | undefined;
  #hasServed = false;
  #isClosed = false;

  private constructor(options: PlakarServerOptions, directory: string, isolation: Isolation) {
    this.#options = options;
    this.#log = options.log ?? silentLog;
    this.#directory = directory;
    this.#isolation = isolation;
    this.socketPath = join(directory, 'relay');
  }

  /** Resolves once plakar serves. Rejects with UserError: 66 if plakar does not open the store, 64 without a namespace. */
  static async start(options: PlakarServerOptions): Promise<PlakarServer> {
    const isolation = chooseIsolation({ ...options, isRoot: process.getuid?.() === 0, isInstalled: isOnPath });
    const server = new PlakarServer(options, await mkdtemp(join(tmpdir(), 'kloset-nbd-plakar-')), isolation);
    try {
      await server.#startFirst();
      return server;
    } catch (error) {
      await server.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#stop();
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** The first plakar tells whether it can open the store at all; only a later one is started again. */
  async #startFirst(): Promise<void> {
    let outcome = await this.#launch();
    if (outcome.event === 'unborn' && this.#isolation !== openLoopback) {
      if (!this.#options.allowOpenLoopback) {
        throw new UserError(
          `plakar cannot be given a network namespace of its own (${outcome.why}). ${allowanceAdvice}`,
        );
      }
      await this.#stop();
      this.#isolation = openLoopback;
      outcome = await this.#launch();
    }
    if (outcome.event !== 'serving') {
      const said = 'lastWords' in outcome ? lastLine(outcome.lastWords) : '';
      throw new UserError(
        `plakar does not serve the store ${redact(this.#options.location)}: ${redact(said || outcome.why)}`,
        { exitCode: exitCodes.noStore },
      );
    }
    if (this.#isolation === openLoopback) {
      this.#log.warn(
        { location: redact(this.#options.location) },
        'plakar serves the store on the loopback of this host (--allow-open-loopback): EVERY USER OF THIS HOST CAN WRITE INTO THE STORE.',
      );
    }
    this.#relaunchWhenItEnds(RESTART_MS_FIRST);
  }

  /** Starts a relay; resolves with the first thing that is known of its plakar. */
  async #launch(): Promise<Outcome> {
    const { enter, network, nameserver, connect } = this.#isolation;
    const { plakar, location } = this.#options;
    // An earlier relay has taken the directory with it.
    await rm(this.#directory, { recursive: true, force: true });
    await mkdir(this.#directory, { mode: 0o700 });
    const orders: RelayOrders = {
      // What plakar caches is of no use to a server; its own caches belong to the user's other runs of it.
      plakar: [plakar, '-cachedir', join(this.#directory, 'cache'), 'at', location, 'server'],
      socketPath: this.socketPath,
      directory: this.#directory,
      network,
      nameserver,
    };
    // plakar's server passes stored bytes through: it needs no passphrase, and gets none.
    const { PLAKAR_PASSPHRASE: _passphrase, ...environment } = process.env;
    const relayFile = programFile('kloset/plakar-server/relay.js');
    const relay = startChild([...enter, process.execPath, relayFile, JSON.stringify(orders)], environment);
    let complaints = '';
    relay.stderr?.on('data', (piece: Buffer) => {
      complaints = (complaints + piece.toString()).slice(-1000);
    });
    let helper: ChildProcess | undefined;
    return new Promise((resolve) => {
      let isBorn = false;
      this.#running = { relay, helper };
      relay.once('error', (error) => resolve({ event: 'unborn', why: error.message }));
      relay.once('exit', () =>
        resolve({ event: isBorn ? 'failed' : 'unborn', why: lastLine(complaints) || 'it ended at once' }),
      );
      createInterface({ input: relay.stdout! }).on('line', (line) => {
        const event = JSON.parse(line) as RelayEvent;
        if (event.event !== 'hello') {
          this.#report(event);
          resolve(event);
          return;
        }
        isBorn = true;
        if (connect === undefined || relay.pid === undefined) return;
        // unshare's own process has entered the network namespace, and stays in it.
        helper = startChild([...TETHER, ...connect(relay.pid)], environment);
        this.#running = { relay, helper };
        // Without its network plakar is of no use: everything is started again.
        helper.once('exit', () => relay.stdin?.end());
        helper.once('error', () => relay.stdin?.end());
      });
    });
  }

  #relaunchWhenItEnds(pauseMs: number): void {
    this.#running?.relay.once('exit', () => {
      if (this.#isClosed) return;
      this.#log.warn({ againInMs: pauseMs }, 'The relay to plakar ended; it is started again.');
      setTimeout(() => void this.#relaunch(pauseMs), pauseMs);
    });
  }

  async #relaunch(pauseMs: number): Promise<void> {
    await this.#stop();
    if (this.#isClosed) return;
    const outcome = await this.#launch().catch((error: Error): Outcome => ({ event: 'failed', why: error.message }));
    this.#relaunchWhenItEnds(outcome.event === 'serving' ? RESTART_MS_FIRST : Math.min(2 * pauseMs, RESTART_MS_MAX));
  }

  #report(event: Outcome): void {
    if (event.event === 'serving') {
      this.#hasServed = true;
      this.#log.debug({}, 'plakar serves the store to us.');
    }
    // That the first one cannot serve is an error, and told as such.
    if (event.event !== 'ended' || this.#isClosed || !this.#hasServed) return;
    const fields = { againInMs: event.againInMs, plakar: redact(lastLine(event.lastWords)) };
    this.#log.warn(fields, `plakar's server ended (${event.why}); it is started again.`);
  }

  /** Ends relay and helper, if there are any. */
  async #stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await Promise.all([running?.relay, running?.helper].map(stopChild));
  }
}

/** In a group of its own: Ctrl-C is for the process that serves, which ends this one when its clients are done. */
function startChild([command = '', ...words]: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const child = spawn(command, words, { env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
  // It is told to end by the end of its input; one that has ended already cannot be told.
  child.stdin.on('error', () => undefined);
  return child;
}

async function stopChild(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.stdin?.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
  await ended;
  clearTimeout(timer);
}

/** plakar puts the reason behind its name, and advice after that. */
function lastLine(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.findLast((line) => line.startsWith('plakar: ')) ?? lines.at(-1) ?? '';
}

/** Without the user's secrets: an address can hold a password. */
export function redact(text: string): string {
  return text.replace(/(:\/\/)[^/@\s]*@/g, '$1…@');
}
