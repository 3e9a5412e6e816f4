/** Bounds of verifying; each with its unit and reason. Together they keep its memory the same for stores of any size. */

/** Problems listed for a snapshot; more are counted. Some 500 bytes each. */
export const PROBLEMS_LISTED_MAX = 100_000;

/** Contents, and chunks, remembered as sound: some 40 bytes each. What is met beyond may be checked more than once. */
export const SOUND_KEPT_MAX = 2 ** 22;

/** Directories read at once; each list is in memory as a whole. */
export const DIRECTORIES_IN_FLIGHT_MAX = 4;

/** Files, records and nodes' values looked at at once, for each directory or tree. */
export const ENTRIES_IN_FLIGHT_MAX = 16;

/** Chunks of one file asked for at once; the budget of bytes in flight bounds them all together. */
export const CHUNKS_IN_FLIGHT_MAX = 16;
