/** `--metrics`: what Prometheus and probes get, and that the README lists it. */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type RunningServer, runCli, startServer } from '../support/cli.ts';
import { albumStore, cleanupAfterEach, projectRoot, temporaryFolder } from '../support/fixtures.ts';
import { freePort } from '../support/ports.ts';
import { parsePrometheus, sampleOf } from '../support/prometheus.ts';
import { attachRaw, readRequest, receive } from './raw-client.ts';

const cleanup = cleanupAfterEach();
const PREFIX = 'kloset_nbd_';
const SIMPLE_REPLY_BYTES = 16;

async function serve(...args: readonly string[]): Promise<{ server: RunningServer; base: string }> {
  const server = await startServer(cleanup, ['latest', '--store', albumStore, '--metrics', '0', ...args]);
  return { server, base: await metricsUri(server) };
}

async function metricsUri({ waitForLog }: RunningServer): Promise<string> {
  return (await waitForLog(({ uri }) => String(uri).startsWith('http:'))).uri as string;
}

const scrape = async (base: string) => parsePrometheus(await (await fetch(`${base}metrics`)).text());

describe('--metrics', () => {
  test('counts what a client reads, in a format that Prometheus takes', async () => {
    const { server, base } = await serve();
    const socket = await attachRaw(cleanup, server.uris[0]!, '');
    const before = await scrape(base);
    for (const cookie of [1, 2]) {
      socket.write(readRequest(cookie, 1024, 4096));
      await receive(socket, SIMPLE_REPLY_BYTES + 4096);
    }
    const after = await scrape(base);
    const grew = (name: string, labels = {}) =>
      sampleOf(after, `${PREFIX}${name}`, labels) - sampleOf(before, `${PREFIX}${name}`, labels);
    expect(grew('requests_total')).toBe(2);
    expect(grew('request_duration_seconds_count', { command: 'read' })).toBe(2);
    expect(grew('request_bytes_total', { kind: 'read' })).toBe(8192);
    // Two blocks are touched, twice.
    expect(grew('distinct_bytes_total')).toBe(8192);
    expect(sampleOf(after, `${PREFIX}read_amplification_ratio`, { of: 'asked' })).toBe(1);
    expect(sampleOf(after, `${PREFIX}connections`)).toBe(1);
    expect(sampleOf(after, `${PREFIX}store_bytes_total`, { kind: 'metadata' })).toBeGreaterThan(0);
    for (const metric of after.values()) expect(metric.name.startsWith(PREFIX), metric.name).toBe(true);
  });

  test('are what the README lists', async () => {
    const { base } = await serve();
    const told = [...(await scrape(base)).keys()].map((name) => name.slice(PREFIX.length));
    const readme = readFileSync(join(projectRoot, 'README.md'), 'utf8');
    const table = /\| metric, behind `kloset_nbd_` [^\n]*\n\| ---[^\n]*\n((?:\|[^\n]*\n)+)/.exec(readme)![1]!;
    const listed = table
      .trimEnd()
      .split('\n')
      .flatMap((line) => [...line.split('|')[1]!.matchAll(/`([a-z_*]+)`/g)].map((match) => match[1]!));
    const patterns = listed.map((name) => new RegExp(`^${name.replaceAll('*', '.*')}$`));
    for (const name of told)
      expect(
        patterns.some((pattern) => pattern.test(name)),
        name,
      ).toBe(true);
    for (const [index, pattern] of patterns.entries())
      expect(
        told.some((name) => pattern.test(name)),
        listed[index],
      ).toBe(true);
  });

  test('come with /healthz; other paths and methods are refused', async () => {
    const { base } = await serve();
    const health = await fetch(`${base}healthz`);
    expect([health.status, await health.json()]).toEqual([200, { status: 'ok', reasons: [] }]);
    const head = await fetch(`${base}metrics?x=1`, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-type'), await head.text()]).toEqual([
      200,
      'text/plain; version=0.0.4; charset=utf-8',
      '',
    ]);
    expect((await fetch(`${base}`)).status).toBe(404);
    expect((await fetch(`${base}metrics`, { method: 'POST' })).status).toBe(405);
  });

  test('are told by the next worker when one was killed', async () => {
    const overlay = temporaryFolder(cleanup);
    const port = await freePort();
    const args = [
      'latest',
      '--store',
      albumStore,
      '--supervise',
      '--overlay',
      overlay,
      '--metrics',
      `127.0.0.1:${port}`,
    ];
    const server = await startServer(cleanup, args);
    const base = `http://127.0.0.1:${port}/`;
    await scrape(base);
    const workers = () => server.log.filter(({ msg }) => msg.startsWith('Metrics are at'));
    process.kill(workers()[0]!.pid as number, 'SIGKILL');
    await server.waitForLog(({ msg }) => msg === 'A new worker serves.');
    await scrape(base);
    expect(workers().length).toBe(2);
  });

  test('at a port that is in use, or no port, end the command with what to do', async () => {
    const { port } = new URL((await serve()).base);
    const command = ['serve', 'latest', '--store', albumStore, '--listen', 'tcp://127.0.0.1:0', '--metrics'];
    const taken = await runCli([...command, port]);
    expect(taken.exitCode).toBe(64);
    expect(taken.stderr).toContain(`--metrics 127.0.0.1:${port}: the port is in use: stop the program that has it`);
    const wrong = await runCli([...command, `localhost:${port}:1`]);
    expect([wrong.exitCode, wrong.stderr]).toEqual([
      64,
      `kloset-nbd: --metrics localhost:${port}:1: write an address such as 127.0.0.1:9809.\n`,
    ]);
  });

  test('are not kept from others by a client that sends half a request', async () => {
    const { base } = await serve();
    const { port } = new URL(base);
    const sockets = Array.from({ length: 8 }, () => connect(Number(port), '127.0.0.1'));
    for (const socket of sockets) {
      cleanup.add(async () => void socket.destroy());
      socket.write('GET /metrics HT');
    }
    expect((await fetch(`${base}metrics`)).status).toBe(200);
  });
});
