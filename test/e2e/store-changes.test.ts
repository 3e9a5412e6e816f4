/** A store that changes beneath a server: it goes away and returns, plakar backs up, removes, and runs maintenance. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { exportUri, mustRun, run, startServer } from '../support/cli.ts';
import { listExports, sha256OfExport } from '../support/cli-clients.ts';
import {
  albumSnapshots,
  albumStore,
  cleanupAfterEach,
  copyOfStore,
  shortId,
  temporaryFolder,
} from '../support/fixtures.ts';
import { startPlakarServerDouble } from '../support/plakar-server-double.ts';
import { privatePlakarEnvironment } from '../support/plakar-server-real.ts';
import { commandPath, requires } from '../support/requires.ts';

const cleanup = cleanupAfterEach();
const [before, after] = albumSnapshots;
/** Little free space and hardly a cache: what is read comes from the store. */
const frugal = ['--free', '16M', '--cache-memory', '1M'];

const needClient = requires('nbdcopy', 'nbdinfo');
describe.skipIf(needClient.missing)(needClient.title('a store behind a server'), () => {
  it('that goes away while it is read and comes back is read on, without an error', async () => {
    const plakar = await startPlakarServerDouble(cleanup, albumStore);
    const server = await startServer(cleanup, ['latest', '--store', plakar.url, '--log-level', 'debug', ...frugal]);
    const uri = exportUri(server.uris[0]!, 'latest@base');
    const whole = await sha256OfExport(uri);
    await plakar.close();
    const reading = sha256OfExport(uri);
    await server.waitForLog(({ msg }) => msg.endsWith('is read again'));
    await startPlakarServerDouble(cleanup, albumStore, { port: plakar.port });
    expect(await reading).toBe(whole);
    expect(server.log.filter(({ level }) => level >= 50)).toEqual([]);
  });

  it('that does not come back gives errors after --fetch-timeout, and the server lives', async () => {
    const plakar = await startPlakarServerDouble(cleanup, albumStore);
    const args = ['latest', '--store', plakar.url, '--fetch-timeout', '10s', '--fetch-concurrency', '2', ...frugal];
    const server = await startServer(cleanup, args);
    await plakar.close();
    await expect(sha256OfExport(exportUri(server.uris[0]!, 'latest@base'))).rejects.toThrow();
    await server.waitForLog(({ msg }) => msg.endsWith('could not be read: given up'));
    expect(plakar.connectionsMost).toBeLessThanOrEqual(2);
    expect((await server.stop()).exitCode).toBe(0);
  });
});

const needPlakar = requires('plakar', 'nbdcopy', 'nbdinfo');
describe.skipIf(needPlakar.missing)(needPlakar.title('a store that plakar works on'), () => {
  /** A copy that plakar can write into, and a way to run plakar on it. */
  function writableStore() {
    const store = copyOfStore(cleanup, albumStore);
    mkdirSync(join(store, 'locks'));
    for (const kind of ['states', 'packfiles']) {
      for (let bucket = 0; bucket < 256; bucket++) {
        mkdirSync(join(store, kind, bucket.toString(16).padStart(2, '0')), { recursive: true });
      }
    }
    const env = { ...privatePlakarEnvironment(cleanup), PLAKAR_GRACEPERIOD: '1s' };
    const words = (...command: string[]) => ['at', store, ...command];
    return {
      store,
      plakar: (...command: string[]) => mustRun(commandPath('plakar'), words(...command), { env }),
      /** Until it has marked, or removed, so many: the one before may still hold its lock, and grace takes a second. */
      async maintain(what: RegExp) {
        for (;;) {
          const { stdout } = await run(commandPath('plakar'), words('maintenance'), { env });
          if (what.test(stdout)) return;
          await sleep(200);
        }
      },
    };
  }

  it('loses a served snapshot with warnings in time, and the others go on', async () => {
    const { store, plakar, maintain } = writableStore();
    const server = await startServer(cleanup, ['--store', store, '--refresh', '500ms', ...frugal]);
    const [uri] = server.uris as [string];
    const baseOf = (snapshot: { readonly id: string }) => exportUri(uri, `${shortId(snapshot)}@base`);
    const digests = { before: await sha256OfExport(baseOf(before)), after: await sha256OfExport(baseOf(after)) };

    await plakar('rm', '-apply', shortId(after));
    const told = await server.waitForLog(({ msg }) => /was deleted from the store/.test(msg));
    expect(told.msg).toMatch(/^snapshot 8e457cf5, .*; its data stays until 7 days after the next maintenance/);
    expect((await listExports(uri)).map((one) => one['export-name'])).not.toContain(shortId(after));
    expect(await sha256OfExport(baseOf(after))).toBe(digests.after);
    server.kill('SIGUSR1');
    const report = await server.waitForLog(({ msg }) => /Health: degraded: snapshot 8e457cf5/.test(msg));
    expect(report).toMatchObject({ status: 'degraded' });

    await maintain(/Coloured [1-9]/);
    await server.waitForLog(({ msg }) => /maintenance may take its data away from .* on/.test(msg));
    expect(await sha256OfExport(baseOf(after))).toBe(digests.after);

    await maintain(/and [1-9]\d* packfiles were removed/);
    await server.waitForLog(({ msg }) => /maintenance has taken data of it away/.test(msg));
    await expect(sha256OfExport(baseOf(after))).rejects.toThrow();
    expect(await sha256OfExport(baseOf(before))).toBe(digests.before);
    expect((await server.stop()).exitCode).toBe(0);
  });

  it('shows a new backup, and `latest` stays what it was once somebody had it', async () => {
    const { store, plakar } = writableStore();
    const server = await startServer(cleanup, ['--store', store, '--refresh', '500ms', ...frugal]);
    const [uri] = server.uris as [string];
    const latest = await sha256OfExport(exportUri(uri, 'latest@base'));
    await plakar('backup', temporaryFolder(cleanup));
    const names = async () => (await listExports(uri)).map((one) => String(one['export-name']));
    const added = await (async () => {
      for (;;) {
        const ids = (await names()).filter((name) => /^[0-9a-f]{8}$/.test(name));
        const found = ids.find((id) => albumSnapshots.every((snapshot) => shortId(snapshot) !== id));
        if (found !== undefined) return found;
        await sleep(100);
      }
    })();
    expect(await sha256OfExport(exportUri(uri, `${added}@base`))).toMatch(/^[0-9a-f]{64}$/);
    expect(await sha256OfExport(exportUri(uri, 'latest@base'))).toBe(latest);
  });
});
