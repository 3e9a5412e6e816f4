// Where things are in the kernels' memory. Nothing is allocated at run time; the data area begins at DATA and is as
// large as the caller has grown the memory. The caller leaves SLACK bytes free behind each of its buffers there.

/** 16 tables of 256 field elements: see polyval.as. */
export const POLYVAL_TABLES: usize = 0;
/** The same for the key's square. */
export const POLYVAL_SQUARE_TABLES: usize = 0x10000;
export const POLYVAL_TABLE_BYTES: usize = 4096;
/** Running hash, 16 bytes. */
export const POLYVAL_STATE: usize = 0x20000;
/** A last block, padded. */
export const POLYVAL_BLOCK: usize = 0x20010;
/** The key, 16 bytes. */
export const POLYVAL_KEY: usize = 0x20020;

/** The key, or the initial value of plain hashing: 8 words. */
export const BLAKE3_KEY: usize = 0x20040;
/** Chaining values of four lanes, word by word: 8 vectors. */
export const BLAKE3_CHAINING: usize = 0x20080;
/** A message block of four lanes, word by word: 16 vectors. */
export const BLAKE3_MESSAGE: usize = 0x20100;
/** Chaining values of one group of chunks, 32 bytes each. */
export const BLAKE3_GROUP: usize = 0x20200;
/** Chaining values of complete subtrees that wait for their right sibling, 32 bytes each; one a level at most. */
export const BLAKE3_STACK: usize = 0x20400;
/** Result: 8 words. */
export const BLAKE3_DIGEST: usize = 0x20c00;

/** Static tables begin here (--memoryBase in build.mjs). */
export const TABLES: usize = 0x21000;
/** The caller's buffers. */
export const DATA: usize = 0x22000;
