import { type FileHandle, open } from 'node:fs/promises';
import { CorruptStoreError, exitCodes, StoreUnavailableError, UserError } from '../core/errors.ts';
import { CONFIG_BYTES_MAX, STATE_BYTES_MAX } from './limits.ts';
import { isMissing, toStoreError } from './local-errors.ts';
import {
  PTAR_STATE_ID,
  type PtarSections,
  parsePtarLayout,
  ptarHeader,
  ptarTrailer,
  requirePtarSize,
} from './ptar-layout.ts';
import { type RemoteStore, TransientStoreError } from './remote-store.ts';
import type { ResourceKind } from './store.ts';

interface OpenedArchive extends PtarSections {
  readonly file: FileHandle;
}

/**
 * A store in one `.ptar` file: one CONFIG, one state, and one packfile that every packfile id stands for. After a failure
 * that can pass the file is opened anew: on a network file system the handle may be what is broken.
 */
export class PtarStore implements RemoteStore {
  readonly location: string;
  /** Of the file when it was first opened: another one in its place is not read. */
  #sizeBytes: number | undefined;
  #opened: Promise<OpenedArchive> | undefined;

  constructor(file: string) {
    this.location = file;
  }

  async readConfig(): Promise<Uint8Array> {
    return this.#readSection('config', CONFIG_BYTES_MAX);
  }

  async list(kind: ResourceKind): Promise<string[]> {
    // The packfile's id stands only in the state.
    return kind === 'states' ? [PTAR_STATE_ID] : [];
  }

  async readState(): Promise<Uint8Array> {
    return this.#readSection('state', STATE_BYTES_MAX);
  }

  async readPackfile(id: string, offset: number, target: Uint8Array): Promise<void> {
    const { file, packfile } = await this.#open();
    if (offset + target.byteLength > packfile.length) {
      throw new CorruptStoreError(`packfile ${id}: it ends before byte ${offset + target.byteLength}`);
    }
    await this.#fill(file, packfile.offset + offset, target);
  }

  async readPackfileUpTo(id: string, offset: number, target: Uint8Array): Promise<number> {
    const { packfile } = await this.#open();
    const available = target.subarray(0, Math.max(0, packfile.length - offset));
    await this.readPackfile(id, offset, available);
    return available.byteLength;
  }

  async close(): Promise<void> {
    const opened = await this.#opened?.catch(() => undefined); // What never opened needs no closing.
    this.#opened = undefined;
    await opened?.file.close();
  }

  async #readSection(name: 'config' | 'state', bytesMax: number): Promise<Uint8Array> {
    const opened = await this.#open();
    const { offset, length } = opened[name];
    if (length > bytesMax) throw new CorruptStoreError(`${this.location}: its ${name} has ${length} bytes`);
    const content = new Uint8Array(length);
    await this.#fill(opened.file, offset, content);
    return content;
  }

  #open(): Promise<OpenedArchive> {
    const opening = this.#opened ?? this.#openFile();
    this.#opened = opening;
    opening.catch(() => {
      if (this.#opened === opening) this.#opened = undefined;
    });
    return opening;
  }

  async #fill(file: FileHandle, offset: number, target: Uint8Array): Promise<void> {
    try {
      await fill(file, this.location, offset, target);
    } catch (error) {
      if (error instanceof TransientStoreError) await this.close();
      throw error;
    }
  }

  async #openFile(): Promise<OpenedArchive> {
    const file = await open(this.location, 'r').catch((error) => {
      if (this.#sizeBytes !== undefined) {
        if (isMissing(error)) throw new TransientStoreError(`${this.location} is not there any more`, { cause: error });
        throw toStoreError(error, this.location);
      }
      throw new UserError(
        `The archive ${this.location} cannot be opened (${error.code}). Check the path given with --store.`,
        {
          exitCode: exitCodes.noStore,
          cause: error,
        },
      );
    });
    try {
      const { sizeBytes, ...sections } = await readSections(file, this.location);
      this.#sizeBytes ??= sizeBytes;
      if (sizeBytes !== this.#sizeBytes) {
        throw new StoreUnavailableError(
          `${this.location} has been replaced since it was opened: start again to read it`,
        );
      }
      return { file, ...sections };
    } catch (error) {
      await file.close();
      throw error;
    }
  }
}

async function readSections(file: FileHandle, name: string): Promise<PtarSections & { readonly sizeBytes: number }> {
  const stats = await file.stat();
  if (!stats.isFile()) {
    throw new UserError(`${name} is not an archive file. Check the path given with --store.`, {
      exitCode: exitCodes.noStore,
    });
  }
  requirePtarSize(stats.size, name);
  const head = new Uint8Array(ptarHeader.sizeBytes);
  await fill(file, name, 0, head);
  const tail = new Uint8Array(ptarTrailer.sizeBytes);
  await fill(file, name, stats.size - tail.byteLength, tail);
  return { sizeBytes: stats.size, ...parsePtarLayout({ head, tail, sizeBytes: stats.size }, name) };
}

async function fill(file: FileHandle, name: string, offset: number, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await file.read(target, done, target.byteLength - done, offset + done).catch((error) => {
      throw toStoreError(error, name);
    });
    if (bytesRead === 0)
      throw new CorruptStoreError(`${name} has become shorter: it ends before byte ${offset + target.byteLength}`);
    done += bytesRead;
  }
}
