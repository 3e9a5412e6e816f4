import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** `npm run test:slow`: what takes minutes, in files of its own, and nothing else. */
const slow = process.env.KLOSET_NBD_SLOW === '1';
const SLOW_FILES = 'test/**/*.slow.test.ts';
const slowProject = {
  extends: true as const,
  test: {
    name: 'slow',
    include: [SLOW_FILES],
    testTimeout: 3_600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
  },
};

export default defineConfig({
  test: {
    root: fileURLToPath(new URL('..', import.meta.url)),
    globalSetup: 'test/global-setup.ts',
    reporters: ['default', './test/support/skips-reporter.ts'],
    pool: 'forks',
    // No command line that a test starts shall find what another one cached, or write into an operator's cache.
    env: { KLOSET_NBD_CACHE_DIR: 'none' },
    projects: slow
      ? [slowProject]
      : [
          {
            extends: true,
            test: {
              name: 'quick',
              include: ['test/{unit,property,conformance}/**/*.test.ts'],
              exclude: [SLOW_FILES],
              testTimeout: 60_000,
              hookTimeout: 120_000,
              sequence: { groupOrder: 0 },
            },
          },
          {
            extends: true,
            test: {
              name: 'e2e',
              include: ['test/e2e/**/*.test.ts'],
              exclude: [SLOW_FILES],
              testTimeout: 240_000,
              hookTimeout: 240_000,
              // One file at a time: kernel mounts and PostgreSQL share the machine's loop devices and its memory.
              fileParallelism: false,
              sequence: { groupOrder: 1 },
            },
          },
        ],
  },
});
