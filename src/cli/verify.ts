import type { Argv, CommandModule } from 'yargs';
import { CorruptStoreError } from '../core/errors.ts';
import { formatBytes } from '../core/units.ts';
import { formatTime, parseSelector } from '../kloset/selector.ts';
import { fromBytePath } from '../source/directory-lister.ts';
import type { Problem } from '../verify/problems.ts';
import { type VerifiedSnapshot, type VerifyReport, verifyStore } from '../verify/verify-store.ts';
import type { GlobalArguments } from './arguments.ts';
import { named, printable } from './printable.ts';
import { chooseStore } from './store.ts';

interface VerifyArguments extends GlobalArguments {
  readonly snapshots: readonly string[];
  readonly data: boolean;
  readonly json: boolean;
}

export const verifyCommand: CommandModule<object, VerifyArguments> = {
  command: 'verify [snapshots..]',
  describe: 'Check that snapshots are what was backed up; without any, all of the store',
  builder: (yargs) => options(yargs) as unknown as Argv<VerifyArguments>,
  handler: verify,
};

function options(yargs: Argv<object>) {
  return yargs
    .positional('snapshots', {
      describe: 'Which: hex prefix of an id, latest, or tag:NAME; :PATH behind it checks that file or directory only',
      type: 'string',
      array: true,
      default: [],
      defaultDescription: 'all',
    })
    .option('data', {
      describe: "Read files' contents, too; else it is metadata, and whether the store lists all contents",
      type: 'boolean',
      default: false,
    })
    .option('json', { describe: 'One JSON object instead of text', type: 'boolean', default: false });
}

async function verify(given: VerifyArguments): Promise<void> {
  const selectors = given.snapshots.map(parseSelector);
  const { store, keys, ignoreDamaged, log, progress } = chooseStore(given);
  try {
    const report = await verifyStore({ store, keys, ignoreDamaged, log, progress, selectors, withData: given.data });
    const text = given.json
      ? `${JSON.stringify(toJson(report, store.location, given.data), undefined, 2)}\n`
      : toText(report);
    process.stdout.write(text);
    const bad = report.snapshots.filter(({ problems }) => problems.count > 0);
    if (bad.length === 0) return;
    const [first] = bad;
    throw new CorruptStoreError(
      `${bad.length === 1 ? `Snapshot ${first!.id.slice(0, 8)} is` : `${bad.length} snapshots are`} damaged; what is affected is listed on standard output.`,
    );
  } finally {
    await store.close();
  }
}

function toText({ snapshots, chunksChecked, counters }: VerifyReport): string {
  if (snapshots.length === 0) return 'The store holds no snapshots.\n';
  const lines = snapshots.flatMap((snapshot) => [
    summary(snapshot),
    ...snapshot.problems.listed.map(problemLine),
    ...more(snapshot),
  ]);
  const read = `${formatBytes(counters.storeBytes)} read, ${chunksChecked} chunks checked`;
  return `${[...lines, read].join('\n')}\n`;
}

function summary({
  id,
  root,
  problems,
  entryCount,
  fileCount,
  fileBytes,
  recordsMissing,
  header,
}: VerifiedSnapshot): string {
  const where = root === '/' ? '' : `, ${printable(fromBytePath(root))}`;
  const verdict = problems.count === 0 ? 'sound' : `${problems.count} ${problems.count === 1 ? 'problem' : 'problems'}`;
  if (header === undefined) return `${id.slice(0, 8)}: ${verdict}`;
  const missing = recordsMissing === 0 ? '' : `, ${recordsMissing} records stand in lists of directories only`;
  return `${id.slice(0, 8)}${where}: ${verdict} (${entryCount} entries, ${fileCount} files with ${formatBytes(fileBytes)}${missing})`;
}

function problemLine({ kind, path, chunk, error }: Problem): string {
  const name = path === undefined ? kind : `${kind} ${printable(path)}`;
  const where = chunk === undefined ? '' : `, chunk ${chunk.index} (${chunk.lengthBytes} bytes at ${chunk.offset})`;
  return `  ${name}${where}: ${error.message}`;
}

function more({ problems }: VerifiedSnapshot): string[] {
  const left = problems.count - problems.listed.length;
  return left === 0 ? [] : [`  and ${left} more`];
}

function toJson({ snapshots, chunksChecked, counters }: VerifyReport, store: string, data: boolean): object {
  return {
    store,
    data,
    sound: snapshots.every(({ problems }) => problems.count === 0),
    chunksChecked,
    storeBytesRead: counters.storeBytes,
    snapshots: snapshots.map(({ id, header, root, problems, entryCount, fileCount, fileBytes, recordsMissing }) => ({
      snapshot: id,
      timestamp: header === undefined ? null : formatTime(header),
      ...named('path', fromBytePath(root)),
      sound: problems.count === 0,
      entryCount,
      fileCount,
      fileBytes,
      recordsMissing,
      problemCount: problems.count,
      problems: problems.listed.map(problemJson),
    })),
  };
}

function problemJson({ kind, path, chunk, error }: Problem): object {
  const { blobType, mac, packfile, offset, length } = error.details;
  return {
    kind,
    ...(path === undefined ? { path: null } : named('path', path)),
    ...(chunk === undefined ? {} : { chunk: chunk.index, offset: chunk.offset, lengthBytes: chunk.lengthBytes }),
    blob: mac === undefined ? null : { type: blobType ?? null, mac },
    stored: packfile === undefined ? null : { packfile, offset, lengthBytes: length },
    message: error.message,
  };
}
