/**
 * Random frames (support/nbd-fuzz.ts), and valid requests against a model. NBD_FUZZ_FRAMES changes the number of frames,
 * NBD_FUZZ_SEED repeats a run; `npm run test:slow` sends a million.
 */
import { afterEach, expect, test } from 'vitest';
import { MemoryDevice } from '../support/memory-device.ts';
import { startServer, type TestServer } from '../support/nbd-fixture.ts';
import { fuzzServer, randomFrom } from '../support/nbd-fuzz.ts';

const frameCount = Number(process.env.NBD_FUZZ_FRAMES ?? 20_000);
const seed = Number(process.env.NBD_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 32));
const SIZE = 256 * 1024;

let running: TestServer | undefined;
afterEach(() => running?.close());

test(`${frameCount} random frames, seed ${seed}`, { timeout: 60_000 + frameCount * 5 }, () =>
  fuzzServer({ frameCount, seed }),
);

test(`valid requests on four connections do what a model does, seed ${seed}`, async () => {
  const device = new MemoryDevice(SIZE);
  const server = await startServer(device);
  running = server;
  const random = randomFrom(seed ^ 0x5eed);
  const model = new Uint8Array(SIZE);
  const clients = await Promise.all(
    (['simple', 'structured', 'extended', 'simple'] as const).map(async (style) =>
      (await server.client()).go('', { style }),
    ),
  );
  const rounds = Math.min(frameCount, 20_000) / 4;
  for (let round = 0; round < rounds / 4; round++) {
    // The connections work on quarters of their own, so that their order does not matter.
    await Promise.all(
      clients.map(async (client, i) => {
        const base = (i * SIZE) / 4;
        const offset = base + random.below(SIZE / 4 - 9000);
        const length = 1 + random.below(9000);
        const kind = random.below(4);
        const payload = kind === 1 ? random.bytes(length) : undefined;
        const flags = kind === 1 && client.style === 'extended' ? 32 : 0;
        const type = [0, 1, 4, 6][kind]!;
        const { errno, data } = await client.call({ type, flags, offset, length, ...(payload && { payload }) });
        expect(errno).toBe(0);
        if (kind === 0) expect(Buffer.compare(data, model.subarray(offset, offset + length))).toBe(0);
        if (payload) model.set(payload, offset);
        if (kind === 3) model.fill(0, offset, offset + length);
        const [first, last] = [Math.ceil(offset / 4096) * 4096, Math.floor((offset + length) / 4096) * 4096];
        if (kind === 2 && last > first) model.fill(0, first, last);
      }),
    );
  }
  expect(Buffer.compare(device.content, model)).toBe(0);
});
