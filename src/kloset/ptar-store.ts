import { type FileHandle, open } from 'node:fs/promises';
import { CorruptStoreError, exitCodes, StoreUnavailableError, UnsupportedError, UserError } from '../core/errors.ts';
import { bytes, struct, u32, u64 } from '../core/struct.ts';
import { formatVersion, versions } from './format.ts';
import { CONFIG_BYTES_MAX, STATE_BYTES_MAX } from './limits.ts';
import type { KlosetStore, ResourceKind } from './store.ts';

/** A single-file archive (kloset-format 2.2). */
const PTAR_MAGIC = '_PLATAR_';
const ptarHeader = struct('ptar header', 'le', 12, [
  ['magic', bytes(8)],
  ['version', u32],
]);
const ptarTrailer = struct('ptar trailer', 'le', 48, [
  ['configOffset', u64],
  ['configLength', u64],
  ['packfileOffset', u64],
  ['packfileLength', u64],
  ['stateOffset', u64],
  ['stateLength', u64],
]);

/** The archive's one state has no id of its own. */
const STATE_ID = '0'.repeat(64);

interface Section {
  readonly offset: number;
  readonly length: number;
}

/** A store in one `.ptar` file: one CONFIG, one state, and one packfile that every packfile id stands for. */
export class PtarStore implements KlosetStore {
  readonly location: string;
  #opened: Promise<{ file: FileHandle; config: Section; packfile: Section; state: Section }> | undefined;

  constructor(file: string) {
    this.location = file;
  }

  async readConfig(): Promise<Uint8Array> {
    return this.#readSection('config', CONFIG_BYTES_MAX);
  }

  async list(kind: ResourceKind): Promise<string[]> {
    // The packfile's id stands only in the state.
    return kind === 'states' ? [STATE_ID] : [];
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

async function readSections(file: FileHandle, name: string) {
  const stats = await file.stat();
  if (!stats.isFile()) {
    throw new UserError(`${name} is not an archive file. Check the path given with --store.`, {
      exitCode: exitCodes.noStore,
    });
  }
  const { size } = stats;
  if (size < ptarHeader.sizeBytes + ptarTrailer.sizeBytes) throw notAnArchive(name, 'it is too short');
  const head = new Uint8Array(ptarHeader.sizeBytes);
  await fill(file, name, 0, head);
  const { magic, version } = ptarHeader.read(head);
  if (Buffer.from(magic).toString('latin1') !== PTAR_MAGIC)
    throw notAnArchive(name, `it does not begin with ${PTAR_MAGIC}`);
  if (version !== versions.v1_0_0) {
    throw new UnsupportedError(
      `${name} is an archive of version ${formatVersion(version)}; this kloset-nbd reads 1.0.0`,
    );
  }
  const tail = new Uint8Array(ptarTrailer.sizeBytes);
  const trailerAt = size - tail.byteLength;
  await fill(file, name, trailerAt, tail);
  const t = readTrailer(name, tail);
  const isContiguous =
    t.configOffset === ptarHeader.sizeBytes &&
    t.packfileOffset === t.configOffset + t.configLength &&
    t.stateOffset === t.packfileOffset + t.packfileLength &&
    t.stateOffset + t.stateLength === trailerAt;
  if (!isContiguous)
    throw notAnArchive(name, 'its trailer does not fit the file: its writing was interrupted, or it is damaged');
  return {
    config: { offset: t.configOffset, length: t.configLength },
    packfile: { offset: t.packfileOffset, length: t.packfileLength },
    state: { offset: t.stateOffset, length: t.stateLength },
  };
}

function readTrailer(name: string, tail: Uint8Array) {
  try {
    return ptarTrailer.read(tail);
  } catch (error) {
    if (!(error instanceof CorruptStoreError)) throw error;
    throw notAnArchive(name, `its trailer is none (${error.message}): its writing was interrupted, or it is damaged`);
  }
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

function notAnArchive(name: string, why: string): CorruptStoreError {
  return new CorruptStoreError(`${name} is no archive that can be read: ${why}`);
}
