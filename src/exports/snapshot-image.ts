import { Closers } from '../core/closers.ts';
import type { Oddity } from '../core/oddities.ts';
import type { ContentReader, SnapshotTree } from '../core/snapshot-tree.ts';
import { Ext4Image } from '../ext4/image.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';
import { planLayout } from '../ext4/plan.ts';
import { composeTrees } from '../source/compose-tree.ts';
import type { KlosetSource } from '../source/kloset-source.ts';
import { type CompositionIdentity, identityOf, type Part } from './composition.ts';
import type { OpenStore } from './open-store.ts';

export interface SnapshotImageOptions {
  readonly store: OpenStore;
  /** One whose root is the disk's, or any number with places of their own. */
  readonly parts: readonly Part[];
  readonly layout: LayoutRequest;
  /** The version an overlay was made with. Default: the newest. */
  readonly layoutVersion?: number | undefined;
  /** What cannot be shown as recorded is named entry by entry, not only counted with the first as an example. */
  readonly everyExample?: boolean;
}

/** A snapshot's directory, and where on the disk it lies. */
export interface PlacedSource {
  readonly source: KlosetSource;
  /** Undefined: it is the disk's root. */
  readonly at: string | undefined;
}

/** Snapshots laid out as a disk, as they are. */
export interface SnapshotImage {
  readonly image: Ext4Image;
  readonly identity: CompositionIdentity;
  /** What cannot be shown as recorded: what the snapshots lack, then what ext4 cannot hold. */
  readonly oddities: readonly Oddity[];
  readonly placed: readonly PlacedSource[];
  close(): Promise<void>;
}

/**
 * Reads the snapshots' trees and plans the disk; nothing of their contents is read. Rejects with UserError (a directory
 * that is not there, a place that cannot be, a layout that cannot be met), UnsupportedError (a layout version that this
 * release does not make), CorruptStoreError or StoreUnavailableError.
 */
export async function openSnapshotImage(options: SnapshotImageOptions): Promise<SnapshotImage> {
  const { store, parts, layout, layoutVersion, everyExample } = options;
  const closers = new Closers();
  try {
    const sources: KlosetSource[] = [];
    for (const { header, path } of parts) {
      const source = await store.openSource(header, path, { everyExample });
      closers.add(() => source.close());
      sources.push(source);
    }
    const identity = identityOf(parts);
    const { tree, content } = compose(parts, sources);
    // What is made of several is as old as the newest of them.
    const createdSeconds = Math.max(...sources.map((source) => source.createdSeconds));
    const planned = planLayout(tree, layout, { ...identity, createdSeconds }, { layoutVersion, everyExample });
    const image = new Ext4Image(planned, content);
    closers.add(() => image.close());
    const oddities = [...sources.flatMap((source) => source.oddities), ...planned.warnings];
    const placed = sources.map((source, index) => ({ source, at: parts[index]!.at }));
    return { image, identity, oddities, placed, close: () => closers.close() };
  } catch (error) {
    return closers.closeBecause(error);
  }
}

function compose(
  parts: readonly Part[],
  sources: readonly KlosetSource[],
): { tree: SnapshotTree; content: ContentReader } {
  const [source] = sources;
  if (parts[0]?.at === undefined) return { tree: source!.tree, content: source! };
  return composeTrees(sources.map((each, i) => ({ tree: each.tree, content: each, at: parts[i]!.at! })));
}
