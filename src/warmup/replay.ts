/** A profile's chunks in a snapshot, which may be a later one of the same source. */
import type { ChunkRef } from '../core/chunk-store.ts';
import { mapAhead } from '../core/concurrency.ts';
import { equalBytes } from '../core/mac.ts';
import { entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { findPath } from '../source/find-child.ts';
import { TABLES_AHEAD_MAX } from './limits.ts';
import type { Profile } from './profile.ts';
import type { TracedChunk } from './read-trace.ts';

/** A snapshot whose files' chunks are known. */
export interface ChunkedSource {
  readonly tree: SnapshotTree;
  /** The absolute path of the tree's root in the snapshot. */
  readonly root: string;
  /** The chunks that hold bytes `from` up to `to` of a file, by default all, in order. */
  chunksOf(entry: number, from?: number, to?: number): Promise<readonly ChunkRef[]>;
}

/**
 * In the profile's order: chunks that the same file still has, wherever in it; for others those that are now in the same
 * place. Files that are gone are passed over, and so are those whose chunk tables cannot be read: `onDamage` is told.
 */
export async function* chunksOfProfile(
  source: ChunkedSource,
  { chunks }: Pick<Profile, 'chunks'>,
  onDamage: (error: unknown) => void,
): AsyncGenerator<ChunkRef> {
  const find = (chunk: TracedChunk) =>
    findChunk(source, chunk).catch((error: unknown) => {
      onDamage(error);
      return [];
    });
  for await (const found of mapAhead(chunks, TABLES_AHEAD_MAX, find)) yield* found;
}

async function findChunk(source: ChunkedSource, { mac, path, offset, lengthBytes }: TracedChunk) {
  const entry = entryOf(source, path);
  if (entry === undefined) return [];
  const here = await source.chunksOf(entry, offset, offset + lengthBytes);
  const [first] = here;
  if (first === undefined || equalBytes(first.mac, mac)) return here.slice(0, 1);
  const moved = first.file.chunks.find((chunk) => equalBytes(chunk.mac, mac));
  return moved === undefined ? here : [moved];
}

/** The file with that path in the snapshot; undefined if it is not below the tree's root, or is no file any more. */
function entryOf({ tree, root }: ChunkedSource, path: Uint8Array): number | undefined {
  const text = Buffer.from(path).toString();
  const prefix = root === '/' ? root : `${root}/`;
  const entry = text.startsWith(prefix) ? findPath(tree, text.slice(prefix.length)) : undefined;
  return entry !== undefined && tree.type[entry] === entryTypes.file ? entry : undefined;
}
