/**
 * A file system in memory that remembers every operation, and can say what a crash at any moment would have left: all
 * that was synced, and of the rest whatever one asks for. Faults can be put in its way.
 */
import { dirname } from 'node:path';
import type { OverlayFile, OverlayFileSystem } from '../../src/device/file-system.ts';
import type { Random } from './overlay-random.ts';

const SECTOR_BYTES = 512;

type Operation =
  | {
      readonly kind: 'name';
      readonly directory: string;
      readonly from: string | undefined;
      readonly to: string | undefined;
      readonly file: number;
    }
  | { readonly kind: 'write'; readonly file: number; readonly position: number; readonly bytes: Buffer }
  | { readonly kind: 'truncate'; readonly file: number; readonly length: number }
  /** Operations before index `covers` are durable: those on the file, or the names in the directory. */
  | { readonly kind: 'sync'; readonly file: number; readonly covers: number }
  | { readonly kind: 'syncDirectory'; readonly directory: string; readonly covers: number };

export type OperationKind = Operation['kind'] | 'list' | 'open' | 'read';

/** Paths and contents after a crash. */
export type Image = Map<string, Buffer>;

/**
 * What a crash leaves of what was not synced. kill: everything, the last write up to `tornAt` bytes. drop: nothing.
 * random: any sectors of each write, a random prefix of the changes of names. sizes: the length of files, but zeroes.
 */
export type Crash =
  | { readonly mode: 'kill'; readonly tornAt?: number }
  | { readonly mode: 'drop' }
  | { readonly mode: 'sizes' }
  | { readonly mode: 'random'; readonly random: Random };

const roundDown = (value: number, unit: number): number => value - (value % unit);

export class CrashFileSystem implements OverlayFileSystem {
  readonly operations: Operation[] = [];
  readonly #names = new Map<string, number>();
  readonly #contents = new Map<number, Buffer>();
  #files = 0;
  /** Asked before every operation; an error is what the operation fails with. A failing write writes about half. */
  fault: ((kind: OperationKind, path: string) => Error | undefined) | undefined;

  constructor(image: Image = new Map()) {
    for (const [path, content] of image) {
      const file = this.#files++;
      this.#names.set(path, file);
      this.#contents.set(file, Buffer.from(content));
      this.operations.push({ kind: 'name', directory: dirname(path), from: undefined, to: path, file });
      this.operations.push({ kind: 'write', file, position: 0, bytes: Buffer.from(content) });
      this.operations.push({ kind: 'sync', file, covers: this.operations.length });
      this.operations.push({ kind: 'syncDirectory', directory: dirname(path), covers: this.operations.length });
    }
  }

  /** What is there now. */
  image(): Image {
    return new Map([...this.#names].map(([path, file]) => [path, Buffer.from(this.#contents.get(file)!)]));
  }

  /** What a crash after the first `count` operations leaves. */
  crash(count: number, crash: Crash): Image {
    const done = this.operations.slice(0, count);
    const syncedFiles = new Map<number, number>();
    const syncedDirectories = new Map<string, number>();
    for (const operation of done) {
      if (operation.kind === 'sync') syncedFiles.set(operation.file, operation.covers);
      if (operation.kind === 'syncDirectory') syncedDirectories.set(operation.directory, operation.covers);
    }
    const names = new Map<string, number>();
    const contents = new Map<number, Buffer>();
    let namesLost = false;
    done.forEach((operation, index) => {
      if (operation.kind === 'name') {
        const durable = index < (syncedDirectories.get(operation.directory) ?? 0) || crash.mode === 'kill';
        // Journals keep the changes of names in order: the first one lost loses the rest.
        if (!durable && crash.mode === 'random') namesLost ||= crash.random.chance(0.3);
        if (durable || (crash.mode === 'random' && !namesLost)) applyName(names, operation);
      } else if (operation.kind === 'write') {
        const durable = index < (syncedFiles.get(operation.file) ?? 0);
        const tornAt = crash.mode === 'kill' && index === count - 1 ? crash.tornAt : undefined;
        const content = contents.get(operation.file) ?? Buffer.alloc(0);
        contents.set(operation.file, writeAfterCrash(content, operation, durable, tornAt, crash));
      } else if (operation.kind === 'truncate') {
        const durable = index < (syncedFiles.get(operation.file) ?? 0) || crash.mode === 'kill';
        if (!durable && !(crash.mode === 'random' && crash.random.chance(0.5))) return;
        const content = contents.get(operation.file) ?? Buffer.alloc(0);
        contents.set(operation.file, resized(content, operation.length));
      }
    });
    return new Map([...names].map(([path, file]) => [path, contents.get(file) ?? Buffer.alloc(0)]));
  }

  async open(path: string, access: 'read' | 'write' | 'create'): Promise<OverlayFile> {
    await this.#before('open', path);
    let file = this.#names.get(path);
    if (access === 'create') {
      if (file !== undefined) throw systemError('EEXIST', path);
      file = this.#files++;
      this.#contents.set(file, Buffer.alloc(0));
      this.#name({ from: undefined, to: path, file });
    }
    if (file === undefined) throw systemError('ENOENT', path);
    return this.#fileOf(file, path);
  }

  async list(directory: string): Promise<string[]> {
    await this.#before('list', directory);
    const prefix = `${directory}/`;
    const inside = [...this.#names.keys()].filter((path) => path.startsWith(prefix));
    // A directory is there as long as it has files.
    return [...new Set(inside.map((path) => path.slice(prefix.length).split('/')[0]!))];
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#before('name', path);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#before('name', from);
    const file = this.#names.get(from);
    if (file === undefined) throw systemError('ENOENT', from);
    this.#name({ from, to, file });
  }

  async removeDirectory(path: string): Promise<void> {
    await this.#before('name', path);
    if ((await this.list(path)).length > 0) throw systemError('ENOTEMPTY', path);
  }

  async link(from: string, to: string): Promise<void> {
    await this.#before('name', from);
    const file = this.#names.get(from);
    if (file === undefined) throw systemError('ENOENT', from);
    if (this.#names.has(to)) throw systemError('EEXIST', to);
    this.#name({ from: undefined, to, file });
  }

  async copy(from: string, to: string): Promise<void> {
    const content = this.#contents.get(this.#names.get(from) ?? -1);
    if (content === undefined) throw systemError('ENOENT', from);
    await (await this.open(to, 'create')).write([content], 0);
  }

  async remove(path: string): Promise<void> {
    await this.#before('name', path);
    const file = this.#names.get(path);
    if (file === undefined) throw systemError('ENOENT', path);
    this.#name({ from: path, to: undefined, file });
  }

  async syncDirectory(path: string): Promise<void> {
    const covers = this.operations.length;
    await this.#before('syncDirectory', path);
    this.operations.push({ kind: 'syncDirectory', directory: path, covers });
  }

  #fileOf(file: number, path: string): OverlayFile {
    return {
      read: async (target, position) => {
        await this.#before('read', path);
        const content = this.#contents.get(file)!;
        return position < content.length ? content.copy(target, 0, position) : 0;
      },
      readNow: (target, position) => {
        if (this.fault?.('read', path) !== undefined) return false;
        return this.#contents.get(file)!.copy(target, 0, position) === target.length;
      },
      write: async (buffers, position) => {
        const bytes = Buffer.concat(buffers);
        try {
          await this.#before('write', path);
        } catch (error) {
          this.#writeHalf(file, position, bytes);
          throw error;
        }
        this.#write(file, position, bytes);
      },
      writeNow: (buffers, position) => {
        const bytes = Buffer.concat(buffers);
        const isFailing = this.fault?.('write', path) !== undefined;
        if (isFailing) this.#writeHalf(file, position, bytes);
        else this.#write(file, position, bytes);
        return !isFailing;
      },
      sync: async () => {
        const covers = this.operations.length;
        await this.#before('sync', path);
        this.operations.push({ kind: 'sync', file, covers });
      },
      truncate: async (length) => {
        await this.#before('truncate', path);
        this.#contents.set(file, resized(this.#contents.get(file)!, length));
        this.operations.push({ kind: 'truncate', file, length });
      },
      status: async () => {
        await this.#before('read', path);
        return { sizeBytes: this.#contents.get(file)!.length };
      },
      isLinked: () => [...this.#names.values()].includes(file),
      close: async () => {},
    };
  }

  #write(file: number, position: number, bytes: Buffer): void {
    this.#contents.set(file, written(this.#contents.get(file)!, position, bytes));
    this.operations.push({ kind: 'write', file, position, bytes: Buffer.from(bytes) });
  }

  /** A short write ends where a block of the file does, never inside a sector. */
  #writeHalf(file: number, position: number, bytes: Buffer): void {
    const end = roundDown(position + bytes.length / 2, SECTOR_BYTES);
    this.#write(file, position, bytes.subarray(0, Math.max(0, end - position)));
  }

  #name(change: { from: string | undefined; to: string | undefined; file: number }): void {
    const operation = { kind: 'name', directory: dirname(change.to ?? change.from!), ...change } as const;
    applyName(this.#names, operation);
    this.operations.push(operation);
  }

  /** Lets others run in between, as a real disk does, and fails if it is to. */
  async #before(kind: OperationKind, path: string): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    const error = this.fault?.(kind, path);
    if (error !== undefined) throw error;
  }
}

export function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

function applyName(
  names: Map<string, number>,
  { from, to, file }: { from: string | undefined; to: string | undefined; file: number },
): void {
  if (from !== undefined) names.delete(from);
  if (to !== undefined) names.set(to, file);
}

function writeAfterCrash(
  content: Buffer,
  { position, bytes }: { position: number; bytes: Buffer },
  durable: boolean,
  tornAt: number | undefined,
  crash: Crash,
): Buffer {
  if (durable) return written(content, position, bytes);
  if (crash.mode === 'kill') return written(content, position, bytes.subarray(0, tornBytes(content, position, tornAt)));
  if (crash.mode === 'drop') return content;
  if (crash.mode === 'sizes') return resized(content, Math.max(content.length, position + bytes.length));
  const { random } = crash;
  const fate = random.below(4);
  if (fate === 0) return content;
  if (fate === 1) return written(content, position, bytes);
  let result = random.chance(0.5) ? resized(content, Math.max(content.length, position + bytes.length)) : content;
  const keep = random.chance(0.5) ? 0.5 : 0.95;
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + SECTOR_BYTES - ((position + at) % SECTOR_BYTES));
    if (random.chance(keep)) result = written(result, position + at, bytes.subarray(at, end));
    at = end;
  }
  return result;
}

/** The kernel copies page by page: what is inside a file already is never half of a sector. */
function tornBytes(content: Buffer, position: number, tornAt: number | undefined): number | undefined {
  if (tornAt === undefined || position + tornAt >= content.length) return tornAt;
  return Math.max(0, roundDown(position + tornAt, SECTOR_BYTES) - position);
}

function written(content: Buffer, position: number, bytes: Uint8Array): Buffer {
  const result = content.length >= position + bytes.length ? content : resized(content, position + bytes.length);
  if (result === content) return overwritten(content, position, bytes);
  result.set(bytes, position);
  return result;
}

function overwritten(content: Buffer, position: number, bytes: Uint8Array): Buffer {
  const result = Buffer.from(content);
  result.set(bytes, position);
  return result;
}

function resized(content: Buffer, length: number): Buffer {
  const result = Buffer.alloc(length);
  content.copy(result);
  return result;
}
