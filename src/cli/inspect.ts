import type { Argv, CommandModule } from 'yargs';
import type { Oddity } from '../core/oddities.ts';
import { entryPathBytes, entryTypes, type SnapshotTree } from '../core/snapshot-tree.ts';
import { formatBytes } from '../core/units.ts';
import { type Part, partOf } from '../exports/composition.ts';
import { openSnapshotImage } from '../exports/snapshot-image.ts';
import { formatTime, parseSelector, selectSnapshot } from '../kloset/selector.ts';
import { toBytePath } from '../source/directory-lister.ts';
import { findLeavingLinks, type LeavingLink } from '../source/tree-links.ts';
import type { GlobalArguments } from './arguments.ts';
import { named, printable } from './printable.ts';
import { chooseStore, openChosen } from './store.ts';

interface InspectArguments extends GlobalArguments {
  readonly snapshot: string;
  readonly all: boolean;
  readonly json: boolean;
}

/** Symlinks that are listed unless all are asked for: as many as fit a screen. Of what is not as recorded the first is named. */
const LINKS_LISTED_MAX = 20;

export const inspectCommand: CommandModule<object, InspectArguments> = {
  command: 'inspect <snapshot>',
  describe: 'Tell what a snapshot holds, what cannot be shown as recorded, and which symlinks leave it',
  builder: (yargs) => options(yargs) as unknown as Argv<InspectArguments>,
  handler: inspect,
};

function options(yargs: Argv<object>) {
  return yargs
    .positional('snapshot', {
      describe:
        'Which snapshot: hex prefix of an id, latest, or tag:NAME; :PATH behind it looks at that directory only',
      type: 'string',
      demandOption: true,
    })
    .option('all', {
      describe: `Name every entry that is not shown as recorded, and every symlink, not ${LINKS_LISTED_MAX}`,
      type: 'boolean',
      default: false,
    })
    .option('json', { describe: 'One JSON object instead of text', type: 'boolean', default: false });
}

async function inspect(given: InspectArguments): Promise<void> {
  const selector = parseSelector(given.snapshot);
  const store = await openChosen(chooseStore(given));
  try {
    const part = partOf(
      selectSnapshot(store.snapshots, selector, store.damaged),
      { selector, at: undefined },
      undefined,
    );
    const { image, oddities, close } = await openSnapshotImage({
      store,
      parts: [part],
      layout: {},
      everyExample: given.all,
    });
    try {
      const findings = findAll(image.layout.tree, { part, oddities, deviceBytes: image.sizeBytes, all: given.all });
      process.stdout.write(given.json ? `${JSON.stringify(toJson(findings), undefined, 2)}\n` : toText(findings));
    } finally {
      await close();
    }
  } finally {
    await store.close();
  }
}

/** All that `inspect` has to say. */
interface Findings {
  readonly part: Part;
  readonly tree: SnapshotTree;
  /** Entries by type, the root among them. */
  readonly entries: ReadonlyMap<keyof typeof entryTypes, number>;
  /** Names beyond the first of an inode. */
  readonly furtherNames: number;
  /** Bytes of all files' contents, each inode's once. */
  readonly fileBytes: number;
  readonly deviceBytes: number;
  /** Everything is named, not only the first of a kind. */
  readonly all: boolean;
  readonly oddities: readonly Oddity[];
  readonly linkCount: number;
  /** The first of them, or all. */
  readonly links: readonly LeavingLink[];
}

function findAll(tree: SnapshotTree, known: Pick<Findings, 'part' | 'oddities' | 'deviceBytes' | 'all'>): Findings {
  const counts = new Float64Array(Object.keys(entryTypes).length);
  let fileBytes = 0;
  for (let entry = 0; entry < tree.length; entry++) {
    counts[tree.type[entry]!]!++;
    if (!tree.sameInodeAs.has(entry)) fileBytes += tree.sizeBytes[entry]!;
  }
  const types = Object.keys(entryTypes) as (keyof typeof entryTypes)[];
  const entries = new Map(types.map((type) => [type, counts[entryTypes[type]]!]));
  const links: LeavingLink[] = [];
  let linkCount = 0;
  for (const link of findLeavingLinks(tree, toBytePath(Buffer.from(known.part.path)))) {
    if (linkCount++ < LINKS_LISTED_MAX || known.all) links.push(link);
  }
  return { ...known, tree, entries, furtherNames: tree.sameInodeAs.size, fileBytes, linkCount, links };
}

/** How people call the types, one and many. */
const typeWords = {
  directory: ['directory', 'directories'],
  file: ['file', 'files'],
  symlink: ['symlink', 'symlinks'],
  fifo: ['fifo', 'fifos'],
  socket: ['socket', 'sockets'],
  characterDevice: ['character device', 'character devices'],
  blockDevice: ['block device', 'block devices'],
} as const satisfies Record<keyof typeof entryTypes, readonly [one: string, many: string]>;

function toText(findings: Findings): string {
  const { part, entries, furtherNames, oddities, all } = findings;
  const { header, path } = part;
  const byType = [...entries].flatMap(([type, count]) =>
    count === 0 ? [] : [`${count} ${typeWords[type][count === 1 ? 0 : 1]}`],
  );
  const hardLinks = furtherNames === 0 ? '' : `; ${furtherNames} of the names are further names (hard links)`;
  return [
    `Snapshot ${header.id}, made ${formatTime(header)}${path === '/' ? '' : `, directory ${printable(Buffer.from(path))}`}`,
    `  holds   ${byType.join(', ')}${hardLinks}`,
    `  bytes   ${findings.fileBytes} (${formatBytes(findings.fileBytes)}) in files`,
    `  disk    ${findings.deviceBytes} bytes (${formatBytes(findings.deviceBytes)}) unless --size or --free say otherwise`,
    '',
    ...(oddities.length === 0
      ? ['Everything is shown as recorded.']
      : ['Not shown as recorded:', ...oddities.flatMap(all ? everyOddity : firstOddity)]),
    '',
    ...linkLines(findings),
    '',
  ].join('\n');
}

function firstOddity({ message, count, examples }: Oddity): string[] {
  const first = printable(examples[0]!);
  return [`  ${message} (${count === 1 ? first : `${count}, first: ${first}`})`];
}

function everyOddity({ message, count, examples }: Oddity): string[] {
  return [`  ${message} (${count})`, ...examples.map((path) => `    ${printable(path)}`)];
}

function linkLines({ tree, links, linkCount }: Findings): string[] {
  if (linkCount === 0) return ['No symlink leaves the snapshot.'];
  const lines = links.map((link) => `  ${describeLink(tree, link)}`);
  const more = linkCount - links.length;
  return [
    `Symlinks that leave the snapshot (${linkCount}): where it is mounted, they reach that machine's own files.`,
    ...lines,
    ...(more === 0 ? [] : [`  and ${more} more; --all lists them`]),
  ];
}

function describeLink(tree: SnapshotTree, { entry, reason, via, inside }: LeavingLink): string {
  const arrow = `${printable(entryPathBytes(tree, entry))} -> ${printable(tree.linkTarget.get(entry)!)}`;
  if (reason === 'through') return `${arrow} (through ${printable(entryPathBytes(tree, via))})`;
  return inside === undefined ? arrow : `${arrow} (the snapshot has it: ${printable(entryPathBytes(tree, inside))})`;
}

function toJson(findings: Findings): object {
  const { part, tree, entries, furtherNames, fileBytes, deviceBytes, oddities, linkCount, links, all } = findings;
  return {
    snapshot: part.header.id,
    timestamp: formatTime(part.header),
    path: part.path,
    entries: Object.fromEntries(entries),
    furtherNames,
    fileBytes,
    deviceBytes,
    notAsRecorded: oddities.map(({ message, count, example, examples }) => ({
      message,
      count,
      example,
      ...(all ? { entries: examples.map((path) => named('path', path)) } : {}),
    })),
    leavingLinkCount: linkCount,
    leavingLinks: links.map(({ entry, reason, via, inside }) => ({
      ...named('path', entryPathBytes(tree, entry)),
      ...named('target', tree.linkTarget.get(entry)!),
      reason,
      ...(reason === 'through' ? named('via', entryPathBytes(tree, via)) : {}),
      ...(inside === undefined ? {} : named('inside', entryPathBytes(tree, inside))),
    })),
  };
}
