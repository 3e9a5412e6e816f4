/** Clones in the hands of a running server, over its control socket. */
import { join } from 'node:path';
import { ControlClient } from '../control/control-client.ts';
import type { DeviceExtent } from '../core/export-device.ts';
import type { ByteRange } from '../core/units.ts';
import { type PackedExtent, unpackExtent, VIEW_READ_BYTES_MAX } from './clone-commands.ts';
import type { CloneDiff } from './clone-diff.ts';
import type { CloneRecord } from './clone-record.ts';
import type { CloneChange, CloneCheck, CloneInfo, CloneList, CloneService, CloneView } from './clone-service.ts';

/** The control socket in a directory of clones. */
export function controlPathOf(directory: string): string {
  return join(directory, 'control');
}

export class RemoteClones implements CloneService {
  readonly serverPid: number;
  readonly #client: ControlClient;

  private constructor(client: ControlClient) {
    this.#client = client;
    this.serverPid = client.pid;
  }

  /** Undefined if no server has the directory. */
  static async connect(directory: string): Promise<RemoteClones | undefined> {
    const client = await ControlClient.connect(controlPathOf(directory));
    return client && new RemoteClones(client);
  }

  async list(): Promise<CloneList> {
    return (await this.#client.call('clone.list')) as CloneList;
  }

  async info(name: string): Promise<CloneInfo> {
    return (await this.#client.call('clone.info', { name })) as CloneInfo;
  }

  async diff(name: string): Promise<{ readonly diff: CloneDiff; readonly connections: number }> {
    return (await this.#client.call('clone.diff', { name })) as { diff: CloneDiff; connections: number };
  }

  async check(name: string): Promise<CloneCheck> {
    return (await this.#client.call('clone.check', { name })) as CloneCheck;
  }

  async copy(name: string, newName: string): Promise<{ readonly connections: number }> {
    return (await this.#client.call('clone.copy', { name, newName })) as { connections: number };
  }

  async change(name: string, change: CloneChange): Promise<void> {
    await this.#client.call('clone.change', { name, change });
  }

  async reset(name: string, { force }: { readonly force: boolean }): Promise<void> {
    await this.#client.call('clone.reset', { name, force });
  }

  async remove(name: string, { force }: { readonly force: boolean }): Promise<void> {
    await this.#client.call('clone.remove', { name, force });
  }

  /** The server gives the view back when this connection ends. */
  async view(name: string): Promise<CloneView> {
    const opened = (await this.#client.call('clone.view', { name })) as {
      readonly view: number;
      readonly record: CloneRecord;
      readonly connections: number;
      readonly sizeBytes: number;
    };
    const { view, ...facts } = opened;
    return {
      ...facts,
      read: (offset, target) => this.#read(view, offset, target),
      status: (range) => this.#status(view, range),
      close: async () => {},
    };
  }

  async close(): Promise<void> {
    this.#client.close();
  }

  async #read(view: number, offset: number, target: Uint8Array): Promise<void> {
    for (let done = 0; done < target.length; ) {
      const length = Math.min(VIEW_READ_BYTES_MAX, target.length - done);
      const bytes = (await this.#client.call('view.read', { view, offset: offset + done, length })) as Uint8Array;
      target.set(bytes, done);
      done += length;
    }
  }

  async #status(view: number, { offset }: ByteRange): Promise<readonly DeviceExtent[]> {
    const packed = (await this.#client.call('view.extents', { view, offset })) as readonly PackedExtent[];
    return packed.map(unpackExtent);
  }
}
