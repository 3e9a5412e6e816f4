import { identityOf } from './composition.ts';
import { openSnapshotImage, type SnapshotImage, type SnapshotImageOptions } from './snapshot-image.ts';

/** An image, and how many have it open. */
interface Entry {
  readonly opening: Promise<SnapshotImage>;
  users: number;
}

/** Images of one store's snapshots: what many disks have below their overlays is read, and kept in memory, once. */
export class SharedImages {
  readonly #entries = new Map<string, Entry>();

  /** As openSnapshotImage; closed for good when the last who opened it has closed it. */
  async open(options: SnapshotImageOptions): Promise<SnapshotImage> {
    const { parts, layout, layoutVersion, everyExample } = options;
    const key = JSON.stringify([identityOf(parts), layout, layoutVersion, everyExample]);
    const entry = this.#entries.get(key) ?? { opening: openSnapshotImage(options), users: 0 };
    this.#entries.set(key, entry);
    entry.users++;
    let closed: Promise<void> | undefined;
    const close = () => {
      closed ??= this.#release(key, entry);
      return closed;
    };
    try {
      return { ...(await entry.opening), close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  async #release(key: string, entry: Entry): Promise<void> {
    entry.users--;
    if (entry.users > 0) return;
    // By identity: after a failure the entry may be another's by now.
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
    const opened = await entry.opening.catch(() => undefined); // Whoever opened it was told.
    await opened?.close();
  }
}
