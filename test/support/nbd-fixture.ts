/** A server over devices of the test's choice, and what a test wants to know about it afterwards. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BlockDevice } from '../../src/core/device.ts';
import type { ExportCatalog, ExportLease } from '../../src/core/export-catalog.ts';
import type { Log } from '../../src/core/log.ts';
import { NbdServer, type NbdServerOptions } from '../../src/nbd/server.ts';
import { MemoryDevice } from './memory-device.ts';
import { RawClient } from './nbd-client.ts';

export interface TestExport {
  readonly device: BlockDevice;
  readonly readOnly?: boolean;
  readonly description?: string;
  /** Default: the name. */
  readonly deviceId?: string;
}

export interface LogLine {
  readonly level: keyof Log;
  readonly message: string;
  readonly fields: object;
}

/** A catalog of fixed exports; the first is the default. Counts leases, so that a test can see that all came back. */
export class TestCatalog implements ExportCatalog {
  /** Leases that were not released. */
  leases = 0;
  acquired = 0;
  readonly exports: ReadonlyMap<string, TestExport>;

  constructor(exports: Readonly<Record<string, TestExport>>) {
    this.exports = new Map(Object.entries(exports));
  }

  async list() {
    return [...this.exports].map(([name, { description = '' }]) => ({ name, description }));
  }

  async acquire(asked: string): Promise<ExportLease | undefined> {
    const name = asked === '' ? [...this.exports.keys()][0]! : asked;
    const found = this.exports.get(name);
    if (found === undefined) return undefined;
    this.leases++;
    this.acquired++;
    let held = true;
    const release = () => {
      if (held) this.leases--;
      held = false;
    };
    const { device, description = '', readOnly = false, deviceId = name } = found;
    return { name, device, description, readOnly, deviceId, release };
  }
}

export interface TestServer {
  readonly server: NbdServer;
  readonly catalog: TestCatalog;
  readonly log: readonly LogLine[];
  readonly bugs: readonly unknown[];
  /** nbd://127.0.0.1:PORT/ */
  readonly tcp: string;
  /** nbd+unix:///?socket=PATH */
  readonly unix: string;
  /** A client on the Unix socket, past the greeting. */
  client(): Promise<RawClient>;
  close(): Promise<void>;
}

/** Starts a server on a free port and on a Unix socket. */
export async function startServer(
  exports: Readonly<Record<string, TestExport>> | BlockDevice = new MemoryDevice(1024 * 1024),
  options: Partial<NbdServerOptions> = {},
): Promise<TestServer> {
  const catalog = new TestCatalog('sizeBytes' in exports ? { disk: { device: exports as BlockDevice } } : exports);
  const log: LogLine[] = [];
  const bugs: unknown[] = [];
  const keep = (level: keyof Log) => (fields: object, message: string) => void log.push({ level, message, fields });
  const server = new NbdServer({
    catalog,
    log: { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') },
    onBug: (error) => bugs.push(error),
    ...options,
  });
  const folder = mkdtempSync(join(tmpdir(), 'nbd-test-'));
  const { uri: tcp } = await server.listen({ host: '127.0.0.1', port: 0 });
  const { uri: unix } = await server.listen({ path: join(folder, 'nbd.sock') });
  const clients: RawClient[] = [];
  return {
    server,
    catalog,
    log,
    bugs,
    tcp,
    unix,
    async client() {
      const client = await RawClient.connect(unix);
      clients.push(client);
      return client.hello();
    },
    async close() {
      for (const client of clients) client.destroy();
      await server.close();
      rmSync(folder, { recursive: true });
    },
  };
}

/** Resolves once `condition` holds, which something else brings about; looks after every turn of the event loop. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
