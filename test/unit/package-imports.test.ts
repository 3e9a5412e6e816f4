import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { findForbiddenImports } from '../../src/tools/check-imports.ts';

const complaints = (path: string, ...lines: readonly string[]) =>
  findForbiddenImports([{ path, text: lines.join('\n') }], ['pino', '@scope/kept']);

describe('arrows between folders', () => {
  test.each([
    ['nbd/server.ts', "import { assert } from '../core/errors.ts';"],
    ['nbd/server.ts', "import { parse } from './protocol.ts';"],
    ['kloset/codec/lz4.ts', "import { assert } from '../../core/errors.ts';"],
    ['source/reader.ts', "import { Store } from '../kloset/store.ts';"],
    ['workers/codec-worker.ts', "import { inflate } from '../kloset/codec/inflate.ts';"],
    ['workers/directory-worker.ts', "import { hashNames } from '../ext4/directory.ts';"],
    ['cli/serve.ts', "import { Server } from '../nbd/server.ts';"],
    ['cli/version.ts', "readFileSync(new URL('../../package.json', import.meta.url))"],
    ['tools/start.ts', "new URL('dist/cli/main.js', root)"],
  ])('%s may: %s', (path, line) => {
    expect(complaints(path, line)).toEqual([]);
  });

  test.each([
    ['core/device.ts', "import { x } from '../nbd/server.ts';"],
    ['nbd/server.ts', "import type { Overlay } from '../device/overlay.ts';"],
    ['ext4/plan.ts', "export * from '../kloset/vfs.ts';"],
    ['kloset/repository.ts', "const { pool } = await import('../workers/pool.ts');"],
    ['kloset/repository.ts', "new Worker(new URL('../workers/codec-worker.js', import.meta.url));"],
    ['workers/codec-worker.ts', "import { Store } from '../kloset/store.ts';"],
    ['nbd/server.ts', "import '../cli/main.ts';"],
    ['cli/main.ts', "import { start } from '../tools/start.ts';"],
    ['tools/start.ts', "import { exitCodes } from '../core/errors.ts';"],
    ['nbd/server.ts', "import { x } from '../../test/support/requires.ts';"],
    ['brandnew/thing.ts', "import { assert } from '../core/errors.ts';"],
  ])('%s must not: %s', (path, line) => {
    expect(complaints(path, line)).toHaveLength(1);
  });

  test('the complaint names file, line and rule', () => {
    expect(complaints('nbd/server.ts', '', "import { b } from '../device/b.ts';")).toEqual([
      'src/nbd/server.ts:2: nbd must not import device/b.ts: it may import itself and core only',
    ]);
  });

  test('an import over several lines is seen', () => {
    expect(complaints('nbd/server.ts', 'import {', '  a,', "} from '../ext4/a.ts';")).toHaveLength(1);
  });
});

describe('packages', () => {
  test('of Node and of the runtime dependencies are fine', () => {
    const lines = ["import fs from 'node:fs';", "import pino from 'pino';", "import x from '@scope/kept/deep.js';"];
    expect(complaints('cli/main.ts', ...lines)).toEqual([]);
  });

  test('that only developers have are not', () => {
    expect(complaints('cli/main.ts', "import fc from 'fast-check';")).toEqual([
      "src/cli/main.ts:1: 'fast-check' is not among the dependencies of package.json",
    ]);
  });
});

test('the program exits with 1 when it finds something', () => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'imports-'));
  try {
    for (const path of ['dist/tools/check-imports.js', 'package.json']) cpSync(join(root, path), join(folder, path));
    const run = () => spawnSync(process.execPath, [join(folder, 'dist/tools/check-imports.js')], { encoding: 'utf8' });
    mkdirSync(join(folder, 'src/nbd'), { recursive: true });
    writeFileSync(join(folder, 'src/nbd/a.ts'), "import { x } from '../core/x.ts';\n");
    expect(run()).toMatchObject({ status: 0, stderr: '' });
    writeFileSync(join(folder, 'src/nbd/b.ts'), "import { x } from '../ext4/x.ts';\n");
    expect(run()).toMatchObject({ status: 1, stderr: expect.stringContaining('src/nbd/b.ts:1: nbd must not import') });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
