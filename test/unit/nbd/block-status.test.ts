/** BLOCK_STATUS of a disk in many pieces: a client that walks it extent by extent costs what it asks for. */
import { afterEach, expect, test } from 'vitest';
import { commandFlags, commands } from '../../../src/nbd/protocol.ts';
import { startServer, type TestServer } from '../../support/nbd-fixture.ts';
import { StatusDevice } from '../../support/nbd-status-device.ts';

let running: TestServer;
afterEach(() => running.close());

const BLOCKS = 64;

/** Every other block holds data; remembers how many extents were looked up at most for each request. */
class Checkered extends StatusDevice {
  readonly asked: number[] = [];

  constructor() {
    super(Uint8Array.from({ length: BLOCKS * 4096 }, (_, i) => Math.floor(i / 4096) % 2));
  }

  override status(...[range, { extentsMax }]: Parameters<StatusDevice['status']>) {
    this.asked.push(extentsMax);
    return super.status(range, { extentsMax });
  }
}

test('with REQ_ONE few extents are looked up, and the first is told; without it, all', async () => {
  const device = new Checkered();
  running = await startServer(device, { limits: { statusExtentsMax: 50 } });
  const contexts = ['base:allocation', 'kloset:overlay'];
  const client = await (await running.client()).go('', { style: 'structured', contexts });
  const ask = async (offset: number, flags: number) => {
    const length = BLOCKS * 4096 - offset;
    const { status } = await client.call({ type: commands.NBD_CMD_BLOCK_STATUS, flags, offset, length });
    return [...status.values()];
  };
  expect(await ask(4096, commandFlags.NBD_CMD_FLAG_REQ_ONE)).toEqual([[[4096, 0]], [[16 * 4096, 0]]]);
  expect((await ask(0, 0))[0]).toHaveLength(50);
  expect(device.asked).toEqual([16, 50]);
});
