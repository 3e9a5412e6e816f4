/** What a tree holds that ext4, or this layout, cannot show as it is: counted by kind, never dropped in silence. */
import { type Oddity, oddityOf } from '../core/oddities.ts';
import { entryPathBytes, type SnapshotTree } from '../core/snapshot-tree.ts';

const messages = {
  'device-number-unknown': 'device nodes are shown with number 0:0: snapshots do not record device numbers',
  'time-clamped': 'modification times outside 1901..2446 are shown as the nearest one ext4 can hold',
  'time-mistaken':
    'modification times from 2310-04-04 to 2378-04-22 are shown as the nearest outside: e2fsck takes them for earlier ones',
  'owner-too-large': 'owner or group numbers above 2^32 - 2 are shown as 65534',
  'file-too-large': 'files above 16 TiB are shown cut to what ext4 can address',
  'link-target-unshowable':
    'symlinks with an empty target, or one of more than 4095 bytes, point to a name that says so',
  'hard-links-split': 'hard links beyond 65000 names of one file continue as a further file with the same content',
  'name-invalid': 'names that are empty, `.`, `..`, over 255 bytes or hold `/` or NUL are shown under another name',
  'name-duplicate': 'a second entry of the same name in one directory is shown under another name',
  'lost-found-renamed': 'the root holds a `lost+found` that is no directory: it is shown under another name',
  'attribute-namespace-unknown': 'attributes outside user, trusted, security and the POSIX ACLs are left out',
  'attribute-name-invalid': 'attributes with an empty or too long name, or a second one of the same name, are left out',
  'attribute-unreadable':
    'user attributes of symlinks, fifos, sockets and devices are there, but Linux lets nobody read them',
  'attribute-value-too-long': 'attribute values over 64 KiB are left out: Linux cannot read them',
  'attribute-names-too-many': 'attributes whose names alone exceed one block are left out',
  'acl-invalid': 'access control lists that do not parse are left out',
} as const;

export type WarningKind = keyof typeof messages;

export interface LayoutWarning extends Oddity {
  readonly kind: WarningKind;
}

/** Gathers warnings: of each kind a number and the first entry, or if asked for every entry, however many come. */
export class WarningCollector {
  readonly #everyExample: boolean;
  readonly #seen = new Map<WarningKind, { count: number; entries: number[] }>();

  constructor({ everyExample }: { everyExample: boolean }) {
    this.#everyExample = everyExample;
  }

  add(kind: WarningKind, entry: number): void {
    const seen = this.#seen.get(kind);
    if (seen === undefined) {
      this.#seen.set(kind, { count: 1, entries: [entry] });
      return;
    }
    seen.count++;
    if (this.#everyExample) seen.entries.push(entry);
    else if (entry < seen.entries[0]!) seen.entries[0] = entry;
  }

  /** In the order of the table above, examples in the tree's order, so that two runs print the same. */
  list(tree: SnapshotTree): LayoutWarning[] {
    return (Object.keys(messages) as WarningKind[]).flatMap((kind) => {
      const seen = this.#seen.get(kind);
      if (seen === undefined) return [];
      const examples = seen.entries.sort((a, b) => a - b).map((entry) => entryPathBytes(tree, entry));
      return [{ kind, ...oddityOf(messages[kind], seen.count, examples) }];
    });
  }
}
