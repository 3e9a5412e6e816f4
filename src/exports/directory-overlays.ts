import { stat } from 'node:fs/promises';
import type { ReadableDevice } from '../core/device.ts';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { DirectoryOverlays, type DirectoryOverlaysOptions } from '../device/directory-overlays.ts';
import type { LayoutParameters } from '../ext4/parameters.ts';
import type { Overlay, OverlayIdentity, Overlays, PinnedIdentity } from './overlays.ts';

/** Space and encryption of overlays in directories. */
export type OverlaySettings = Omit<DirectoryOverlaysOptions, 'log' | 'fileSystem'>;

/** Overlays that survive the process, each in a sub-directory of one directory that this process holds alone. */
export class KeptOverlays implements Overlays {
  readonly isVolatile = false;
  readonly #overlays: DirectoryOverlays;
  readonly #log: Log;

  private constructor(overlays: DirectoryOverlays, log: Log) {
    this.#overlays = overlays;
    this.#log = log;
  }

  /** What holds for each overlay; `option` is how an operator names the directory. Rejects with UserError (exit 64) if another process has it, or it cannot be made. */
  static async open(
    directory: string,
    settings: OverlaySettings,
    log: Log,
    option = '--overlay',
  ): Promise<KeptOverlays> {
    const existing = await stat(directory).catch(() => undefined); // What is not there is made.
    if (existing !== undefined && !existing.isDirectory()) {
      throw new UserError(`${option} ${directory} is a file. Name a directory.`);
    }
    return new KeptOverlays(await DirectoryOverlays.open(directory, { ...settings, log }), log);
  }

  async pinned(key: string): Promise<PinnedIdentity | undefined> {
    const identity = await this.#overlays.identityOf(key);
    if (identity === undefined) return undefined;
    const { snapshotId, path, layout } = identity;
    return { snapshotId, path, layoutVersion: Number(layout.layoutVersion) };
  }

  async keyOf(snapshotId: string, path: string): Promise<string | undefined> {
    const listings = await this.#overlays.list();
    const found = listings.find(
      ({ metadata: { identity } }) => identity.snapshotId === snapshotId && identity.path === path,
    );
    return found?.metadata.exportKey;
  }

  tokenOf(key: string): Promise<string> {
    return this.#overlays.tokenOf(key);
  }

  async open(key: string, base: ReadableDevice, identity: OverlayIdentity): Promise<Overlay> {
    const device = await this.#overlays.openDevice(key, base, { ...identity, layout: flatten(identity.layout) });
    if (device.readOnlyReason !== undefined) {
      this.#log.error(
        { overlay: key, reason: device.readOnlyReason },
        `The overlay "${key}" is damaged and takes no writes: ${device.readOnlyReason}`,
      );
    }
    return device;
  }

  /** As DirectoryOverlays.copy. */
  copy(key: string, newKey: string): Promise<void> {
    return this.#overlays.copy(key, newKey);
  }

  /** As DirectoryOverlays.remove. */
  remove(key: string): Promise<void> {
    return this.#overlays.remove(key);
  }

  /** Where the overlay is, or would be. */
  directoryOf(key: string): string {
    return this.#overlays.directoryOf(key);
  }

  close(): Promise<void> {
    return this.#overlays.close();
  }
}

/** Parameters as plain values, what an operator chose first: a message names the first that differs, and the UUID follows from all others. */
function flatten({ owner, uuid, ...others }: LayoutParameters) {
  return { owner: owner === null ? null : `${owner.uid}:${owner.gid}`, ...others, uuid };
}
