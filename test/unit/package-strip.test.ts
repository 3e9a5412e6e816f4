import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sortRuntimePackages, stripNativeParts } from '../../src/tools/strip-native-parts.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'strip-'));
});
afterEach(() => rmSync(root, { recursive: true }));

const write = (path: string, content: object | string) => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), typeof content === 'string' ? content : JSON.stringify(content));
};
const read = (path: string): unknown => JSON.parse(readFileSync(join(root, path), 'utf8'));

/** A pool with an optional add-on, and a developers' tool that has one too. */
function layOutProject(): void {
  write('package-lock.json', {
    packages: {
      '': {},
      'node_modules/pool': {},
      'node_modules/@fast/addon': { optional: true },
      'node_modules/tool': { dev: true },
      'node_modules/tool-linux': { dev: true, optional: true },
    },
  });
  write('node_modules/pool/package.json', { name: 'pool', main: 'x.js', optionalDependencies: { '@fast/addon': '1' } });
  write('node_modules/@fast/addon/addon.node', 'compiled');
  write('node_modules/tool/package.json', { name: 'tool', optionalDependencies: { 'tool-linux': '1' } });
  write('node_modules/tool-linux/tool.node', 'compiled');
}

test('takes the optional packages away, and their names out of what is bundled', () => {
  layOutProject();
  expect(stripNativeParts(root)).toEqual(['node_modules/pool']);
  expect(read('node_modules/pool/package.json')).toEqual({ name: 'pool', main: 'x.js' });
  expect(() => readFileSync(join(root, 'node_modules/@fast/addon/addon.node'))).toThrow('ENOENT');
});

test("leaves developers' tools alone", () => {
  layOutProject();
  stripNativeParts(root);
  expect(read('node_modules/tool/package.json')).toHaveProperty('optionalDependencies');
  expect(readFileSync(join(root, 'node_modules/tool-linux/tool.node'), 'utf8')).toBe('compiled');
});

test('changes nothing the second time', () => {
  layOutProject();
  stripNativeParts(root);
  expect(stripNativeParts(root)).toEqual([]);
});

test.each(['node_modules/pool/build/pool.node', 'node_modules/pool/binding.gyp'])(
  'refuses to go on with %s',
  (path) => {
    layOutProject();
    write(path, 'compiled, or to be');
    expect(() => stripNativeParts(root)).toThrow(path);
  },
);

test('what developers need for certain is no part of what runs, optional there or not', () => {
  expect(
    sortRuntimePackages({
      packages: { '': {}, a: {}, b: { optional: true }, c: { dev: true }, d: { devOptional: true } },
    }),
  ).toEqual({ kept: ['a'], optional: ['b'] });
});
