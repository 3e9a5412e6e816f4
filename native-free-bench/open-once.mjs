/** One opening in a process of its own, from the built files: `node open-once.mjs STORE CACHE`; CACHE may be none. */
import { resourceUsage } from 'node:process';
import { OpenStore } from '../dist/exports/open-store.js';
import { openSnapshotImage } from '../dist/exports/snapshot-image.js';
import { LocalStore } from '../dist/kloset/local-store.js';

const [, , location, cache] = process.argv;
const begin = performance.now();
const store = await OpenStore.open({
  store: new LocalStore(location),
  keys: {
    passphrase: () => Promise.reject(new Error('the store is not encrypted')),
    deriveKey: () => Promise.reject(new Error('the store is not encrypted')),
  },
  cacheBytesMax: 256 * 2 ** 20,
  inflightBytesMax: 64 * 2 ** 20,
  cache: cache === 'none' ? undefined : { path: cache, isDefault: false },
});
const openedMs = performance.now() - begin;
const parts = [{ header: store.snapshots[0], path: '/', at: undefined }];
const { image, close } = await openSnapshotImage({ store, parts, layout: {} });
const seconds = (performance.now() - begin) / 1000;
const { userCPUTime, systemCPUTime, maxRSS } = resourceUsage();
const figures = {
  indexSeconds: openedMs / 1000,
  seconds,
  cpuSeconds: (userCPUTime + systemCPUTime) / 1e6,
  rssMiB: process.memoryUsage.rss() / 2 ** 20,
  peakMiB: maxRSS / 1024,
  storeMiB: store.counters.storeBytes / 2 ** 20,
  entries: image.layout.tree.length,
};
process.stdout.write(`${JSON.stringify(figures)}\n`);
await close();
await store.close();
