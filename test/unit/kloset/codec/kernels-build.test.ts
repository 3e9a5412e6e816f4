/** The WebAssembly in the package is what its sources beside it compile to. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { supportsKernels } from '../../../../src/core/wasm/instance.ts';

const folder = path.resolve(import.meta.dirname, '../../../../src/core/wasm');

test('module.generated.ts is what build.mjs makes of the sources', () => {
  const built = execFileSync(process.execPath, [path.join(folder, 'build.mjs'), '--print'], { encoding: 'utf8' });
  expect(built).toBe(readFileSync(path.join(folder, 'module.generated.ts'), 'utf8'));
});

test('the module is valid here', () => {
  expect(supportsKernels()).toBe(true);
});
