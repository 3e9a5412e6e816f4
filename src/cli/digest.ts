import type { Argv, CommandModule } from 'yargs';
import { parsePlacedSelector, partsOf } from '../exports/composition.ts';
import { type DeviceDigest, digestDevice, LEAF_BYTES } from '../exports/device-digest.ts';
import { openSnapshotImage } from '../exports/snapshot-image.ts';
import { LAYOUT_VERSION } from '../ext4/parameters.ts';
import type { GlobalArguments } from './arguments.ts';
import { intoOption, type LayoutArguments, layoutOptions, layoutRequest } from './layout-options.ts';
import { chooseStore, openChosen } from './store.ts';

interface DigestArguments extends GlobalArguments, LayoutArguments {
  readonly snapshots: readonly string[];
  readonly layoutVersion: number;
  readonly treeOnly: boolean;
  readonly json: boolean;
}

export const digestCommand: CommandModule<object, DigestArguments> = {
  command: 'digest <snapshots..>',
  describe: 'Print the SHA-256 of the disk that a snapshot is served as, and the root of a hash tree over it',
  builder: (yargs) => options(yargs) as unknown as Argv<DigestArguments>,
  handler: digest,
};

function options(yargs: Argv<object>) {
  return layoutOptions(yargs)
    .positional('snapshots', {
      describe: 'Which snapshot, as for serve: SNAPSHOT[:PATH]; several on one disk: SNAPSHOT[:PATH]=NAME each',
      type: 'string',
      array: true,
      demandOption: true,
    })
    .option('tree-only', {
      describe: 'Leave the SHA-256 out: it takes about a second a GiB, free space included; the tree skips that',
      type: 'boolean',
      default: false,
    })
    .option('layout-version', {
      describe: 'Lay the disk out as this version did, as overlays do that were made over it',
      type: 'number',
      requiresArg: true,
      default: LAYOUT_VERSION,
    })
    .option('json', { describe: 'One JSON object instead of lines', type: 'boolean', default: false });
}

async function digest(given: DigestArguments): Promise<void> {
  const selectors = given.snapshots.map(parsePlacedSelector);
  const into = intoOption(given.into);
  const layout = await layoutRequest(given);
  const chosen = chooseStore(given);
  const { progress } = chosen;
  const store = await openChosen(chosen);
  try {
    const parts = partsOf(store.snapshots, selectors, into, store.damaged);
    const opened = await openSnapshotImage({ store, parts, layout, layoutVersion: given.layoutVersion });
    try {
      const { image } = opened;
      const stage = progress.begin('bytes hashed', image.sizeBytes);
      const onProgress = (bytes: number) => stage.advance(bytes);
      const result = await digestDevice(image, { treeOnly: given.treeOnly, onProgress }).finally(() => stage.end());
      const { parameters } = image.layout;
      process.stdout.write(
        given.json ? `${JSON.stringify(toJson(result, parameters), undefined, 2)}\n` : toText(result),
      );
    } finally {
      await opened.close();
    }
  } finally {
    await store.close();
  }
}

function toText({ sha256, treeRoot, sizeBytes }: DeviceDigest): string {
  const lines = [`sha256 ${sha256}`, `tree   ${treeRoot}`, `bytes  ${sizeBytes}`];
  return `${lines.slice(sha256 === undefined ? 1 : 0).join('\n')}\n`;
}

/** `layout` is all that shaped the bytes besides the snapshot: whoever compares two digests sees what differs. */
function toJson({ sha256, treeRoot, sizeBytes }: DeviceDigest, layout: object): object {
  return { sizeBytes, sha256, tree: { root: treeRoot, leafBytes: LEAF_BYTES, hash: 'RFC 6962, SHA-256' }, layout };
}
