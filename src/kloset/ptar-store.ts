import { type FileHandle, open } from 'node:fs/promises';
import { CorruptStoreError, exitCodes, StoreUnavailableError, UserError } from '../core/errors.ts';
import { CONFIG_BYTES_MAX, STATE_BYTES_MAX } from './limits.ts';
import {
  PTAR_STATE_ID,
  type PtarSections,
  parsePtarLayout,
  ptarHeader,
  ptarTrailer,
  requirePtarSize,
} from './ptar-layout.ts';
import type { KlosetStore, ResourceKind } from './store.ts';

/** A store in one `.ptar` file: one CONFIG, one state, and one packfile that every packfile id stands for. */
export class PtarStore implements KlosetStore {
  readonly location: string;
  #opened: Promise<PtarSections & { readonly file: FileHandle }> | undefined;

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
    await fill(file, this.location, packfile.offset + offset, target);
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
    await fill(opened.file, this.location, offset, content);
    return content;
  }

  #open() {
    this.#opened ??= this.#openFile();
    return this.#opened;
  }

  async #openFile() {
    const file = await open(this.location, 'r').catch((error) => {
      throw new UserError(
        `The archive ${this.location} cannot be opened (${error.code}). Check the path given with --store.`,
        {
          exitCode: exitCodes.noStore,
          cause: error,
        },
      );
    });
    try {
      return { file, ...(await readSections(file, this.location)) };
    } catch (error) {
      await file.close();
      throw error;
    }
  }
}

async function readSections(file: FileHandle, name: string): Promise<PtarSections> {
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
  return parsePtarLayout({ head, tail, sizeBytes: stats.size }, name);
}

async function fill(file: FileHandle, name: string, offset: number, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await file.read(target, done, target.byteLength - done, offset + done).catch((error) => {
      throw new StoreUnavailableError(`${name} cannot be read (${error.code})`, { cause: error });
    });
    if (bytesRead === 0)
      throw new CorruptStoreError(`${name} has become shorter: it ends before byte ${offset + target.byteLength}`);
    done += bytesRead;
  }
}
