/** An overlay held by a process of its own, to be killed. It runs the compiled code: Node 20 reads no TypeScript. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** A write of `length` bytes of value `byte`. */
export interface ChildStep {
  readonly offset: number;
  readonly length: number;
  readonly byte: number;
}

const program = `
  import { createInterface } from 'node:readline';
  const [modules, directory, sizeBytes, identity] = process.argv.slice(1);
  const { DirectoryOverlays } = await import(modules + '/device/directory-overlays.js');
  const base = { sizeBytes: Number(sizeBytes), async read(offset, target) { target.fill(0x33); }, async close() {} };
  const overlays = await DirectoryOverlays.open(directory).catch((error) => {
    console.log(JSON.stringify({ exitCode: error.exitCode, message: error.message }));
    process.exit(error.exitCode);
  });
  const device = await overlays.openDevice('one', base, JSON.parse(identity));
  console.log('open ' + (device.readOnlyReason ?? ''));
  let index = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const { offset, length, byte } = JSON.parse(line);
    await device.write(offset, Buffer.alloc(length, byte), { fua: false });
    if (index % 5 === 4) await device.flush().then(() => console.log('synced ' + index));
    index++;
  }
  await overlays.close();
  console.log('closed');
`;

export interface OverlayChild {
  readonly process: ChildProcessByStdio<Writable, Readable, null>;
  /** Lines it has printed so far. */
  readonly lines: readonly string[];
  /** Resolves to the first line printed that begins with `start`; rejects if the process ends without one. */
  line(start: string): Promise<string>;
  /** Resolves to its exit code, null if it was killed. */
  readonly exited: Promise<number | null>;
}

export const childIdentity = { snapshotId: 'ef'.repeat(32), path: '/', layout: { version: 1 } };
/** Every byte of the base below. */
export const CHILD_BASE_BYTE = 0x33;

export function startOverlayChild(directory: string, sizeBytes: number): OverlayChild {
  const modules = new URL('../../dist', import.meta.url).href;
  const child = spawn(
    process.execPath,
    ['--input-type=module', '--eval', program, modules, directory, String(sizeBytes), JSON.stringify(childIdentity)],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  // Writing to a killed child is what these tests do.
  child.stdin.on('error', () => child.stdin.destroy());
  const lines: string[] = [];
  const waiting: (() => void)[] = [];
  const changed = () => {
    for (const wake of waiting.splice(0)) wake();
  };
  let ended = false;
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    changed();
  });
  const exited = new Promise<number | null>((resolve) => {
    child.on('close', (code) => {
      ended = true;
      changed();
      resolve(code);
    });
  });
  const line = async (start: string): Promise<string> => {
    for (;;) {
      const found = lines.find((one) => one.startsWith(start));
      if (found !== undefined) return found;
      if (ended) throw new Error(`the process ended without "${start}": ${lines.join(' | ')}`);
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  };
  return { process: child, lines, line, exited };
}
