/** Whole stores over a network that fails: the same bytes as from the local disk, whatever happens on the way. */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { expect, it } from 'vitest';
import { entryTypes } from '../../src/core/snapshot-tree.ts';
import type { Clock } from '../../src/kloset/clock.ts';
import { REQUEST_TIMEOUT_MS } from '../../src/kloset/fetch-limits.ts';
import { HttpStore } from '../../src/kloset/http-store.ts';
import { LocalStore } from '../../src/kloset/local-store.ts';
import { ReadAheadStore } from '../../src/kloset/read-ahead-store.ts';
import { RetryingStore } from '../../src/kloset/retrying-store.ts';
import type { KlosetStore } from '../../src/kloset/store.ts';
import { cleanupAfterEach, storePath } from '../support/fixtures.ts';
import { openStore, pathsOf } from '../support/kloset.ts';
import { seededRandom } from '../support/overlay-random.ts';
import { startPlakarServerDouble } from '../support/plakar-server-double.ts';

const cleanup = cleanupAfterEach();

/** Pauses take no time, and attempts end by the store's own watch for stalls. */
const hasty: Clock = {
  now: () => 0,
  after: (delayMs, action) => {
    if (delayMs < REQUEST_TIMEOUT_MS) setImmediate(action);
    return () => undefined;
  },
};

/** What a bad network does to an answer. */
const faults: readonly ((request: IncomingMessage, response: ServerResponse) => void)[] = [
  (_request, response) => void response.writeHead(503, { 'retry-after': '1' }).end('busy'),
  (_request, response) => void response.writeHead(500).end('out of memory'),
  (request) => void request.socket.destroy(),
  (_request, response) =>
    void response.writeHead(200, { 'content-length': 5000 }).write('cut', () => response.destroy()),
  (_request, response) => void response.writeHead(200).end(),
  (_request, response) => void response.writeHead(200).end('[]'),
  () => undefined,
];

/** Digest of every file of every snapshot, and what is known of every entry. */
async function digestOf(store: KlosetStore): Promise<Record<string, string>> {
  const opened = await openStore(store, { passphrase: 'fixture passphrase 2' });
  const digests: Record<string, string> = {};
  for (const header of opened.snapshots) {
    const source = await opened.source(header);
    for (const [path, entry] of pathsOf(source.tree)) {
      const { tree } = source;
      const hash = createHash('sha256').update(`${tree.type[entry]} ${tree.mode[entry]} ${tree.mtimeSeconds[entry]}`);
      if (tree.type[entry] === entryTypes.file) {
        const content = new Uint8Array(tree.sizeBytes[entry]!);
        await source.read(entry, 0, content);
        hash.update(content);
      }
      digests[`${header.id} ${path}`] = hash.digest('hex');
    }
  }
  await opened.close();
  return digests;
}

it.each(['plain', 'encrypted-scrypt', 'wide', 'multi-maintained', 'sha256-nocompress'])(
  'reads all of the store %s through resets, stalls, short answers and errors',
  async (name) => {
    const directory = storePath(name);
    const server = await startPlakarServerDouble(cleanup, directory);
    const random = seededRandom(20261122);
    let faultCount = 0;
    const interceptors = Array.from({ length: 5000 }, () => {
      const fault = random.below(3) === 0 ? faults[random.below(faults.length)] : undefined;
      return (request: IncomingMessage, response: ServerResponse) => {
        // An empty list, or nothing for a state, would be believed: only ranges can be seen to be short.
        const isRange = request.headers.range !== undefined;
        if (fault === undefined || (!isRange && faults.indexOf(fault) >= 4)) return false;
        faultCount++;
        fault(request, response);
        return true;
      };
    });
    server.interceptors.push(...interceptors);
    const network = { verifyCertificate: true, connectionsMax: 8, stallTimeoutMs: 25 };
    const http = new HttpStore({ url: new URL(server.url), ...network });
    const store = new RetryingStore(http, { clock: hasty });
    expect(await digestOf(new ReadAheadStore(store, { windowBytes: 512 }))).toEqual(
      await digestOf(new LocalStore(directory)),
    );
    expect(faultCount).toBeGreaterThan(5);
  },
);
