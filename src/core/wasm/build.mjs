/**
 * Compiles the kernels (AssemblyScript, *.as) and embeds them in module.generated.ts, so that neither build nor package
 * needs a file beside the JavaScript:
 *
 *   node src/core/wasm/build.mjs            writes module.generated.ts
 *   node src/core/wasm/build.mjs --print    writes the same to standard output
 *
 * Same compiler version, same bytes: a test compares. The sources are not called .ts because they are another language:
 * TypeScript's compiler would read them, and fail.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import asc from 'assemblyscript/asc';

const folder = new URL('./', import.meta.url);
const TABLES = 0x21000; // layout.as

let wasm;
const { error, stderr } = await asc.main(
  [
    'kernels.ts',
    ...['--outFile', 'kernels.wasm', '--runtime', 'stub', '--enable', 'simd', '--memoryBase', String(TABLES)],
    ...['--optimizeLevel', '3', '--shrinkLevel', '0', '--converge', '--noAssert', '--initialMemory', '3'],
  ],
  {
    readFile: (name) => (name.includes('/') || !name.endsWith('.ts') ? null : readSource(name.replace(/ts$/, 'as'))),
    writeFile(name, contents) {
      if (name === 'kernels.wasm') wasm = contents;
    },
    listFiles: () => [],
  },
);
if (error !== null) {
  process.stderr.write(stderr.toString());
  throw error;
}
const generated = `/** Made by build.mjs from the *.as files beside it: ${wasm.byteLength} bytes of WebAssembly. Do not edit. */
export const kernelModuleBase64 =
  '${Buffer.from(wasm).toString('base64')}';
`;
if (process.argv.includes('--print')) process.stdout.write(generated);
else writeFileSync(new URL('module.generated.ts', folder), generated);

function readSource(name) {
  try {
    return readFileSync(new URL(name, folder), 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}
