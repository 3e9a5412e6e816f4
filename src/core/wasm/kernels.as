// Entry of the module: everything the TypeScript side calls.
export { decodeLz4Block, measureLz4Block } from './lz4';
export { xxh32Blocks, xxh32End, xxh32Start, xxh32Update } from './xxh32';
export { polyvalBlock, polyvalDecrypt, polyvalStart } from './polyval';
export { blake3End, blake3Start, blake3Update } from './blake3';
export { countBlocks, xorInto } from './counter-mode';
