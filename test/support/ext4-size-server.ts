/**
 * Serves a generated tree in a process of its own: `ext4-size-server.ts files | TEBIBYTES`. A client's kernel that waits for
 * the server must not be waited for by it. Prints the URI; ends with its standard input.
 */
import { WRITABLE_DEVICE_BYTES_MAX } from '../../src/core/limits.ts';
import { openMemoryOverlay } from '../../src/device/memory-overlay.ts';
import { ReadOnlyDevice } from '../../src/device/read-only-device.ts';
import { Ext4Image } from '../../src/ext4/image.ts';
import { planLayout } from '../../src/ext4/plan.ts';
import { millionFiles, terabytesOfFiles } from './ext4-generated.ts';
import { PatternContent } from './ext4-tree.ts';
import { startServer } from './nbd-fixture.ts';

const what = process.argv[2]!;
const tree = what === 'files' ? millionFiles() : terabytesOfFiles(Number(what));
const identity = { snapshotId: '51'.repeat(32), createdSeconds: 1_750_000_000 };
const image = new Ext4Image(planLayout(tree, {}, identity), new PatternContent(tree));
const readOnly = image.sizeBytes > WRITABLE_DEVICE_BYTES_MAX;
const device = readOnly ? new ReadOnlyDevice(image) : await openMemoryOverlay(image);
const server = await startServer({ disk: { device, readOnly } });
console.log(server.tcp);
process.stdin.resume().once('end', async () => {
  await server.close();
  await device.close();
});
