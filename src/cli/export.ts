import type { Argv, CommandModule } from 'yargs';
import { isCloneName } from '../clones/clone-record.ts';
import type { CloneService } from '../clones/clone-service.ts';
import { Closers } from '../core/closers.ts';
import { UserError } from '../core/errors.ts';
import type { ProgressStage } from '../core/progress.ts';
import { formatBytes, MiB } from '../core/units.ts';
import { ReadOnlyDevice } from '../device/read-only-device.ts';
import { parsePlacedSelector, partsOf } from '../exports/composition.ts';
import { openSnapshotImage } from '../exports/snapshot-image.ts';
import { StatusDevice } from '../exports/status-device.ts';
import { LAYOUT_VERSION } from '../ext4/parameters.ts';
import { createImageFile, type ImageSink, streamSink } from '../images/image-sink.ts';
import type { ImageSource } from '../images/image-source.ts';
import { writeQcow2Image } from '../images/qcow2-image.ts';
import { writeRawImage } from '../images/raw-image.ts';
import { type ClonesArguments, clonesOption, commandLog, tellConnected, withClones } from './clones-options.ts';
import { EndSignals } from './end-signals.ts';
import { intoOption, type LayoutArguments, layoutOptions, layoutRequest } from './layout-options.ts';
import { openProgress } from './progress.ts';
import { chooseStore, openChosen } from './store.ts';

interface ExportArguments extends ClonesArguments, LayoutArguments {
  readonly what: string;
  readonly to: string;
  readonly format: 'qcow2' | 'raw';
  readonly deltaOnly: boolean;
  readonly backing: string | undefined;
  readonly force: boolean;
}

/** The value of `--to` that is standard output. */
const STDOUT = '-';

export const exportCommand: CommandModule<object, ExportArguments> = {
  command: 'export <what>',
  describe: 'Write a clone, or a snapshot, as a disk image',
  builder: (yargs) => options(yargs) as unknown as Argv<ExportArguments>,
  handler: exportDisk,
};

function options(yargs: Argv<object>) {
  return layoutOptions(yargs)
    .positional('what', { describe: 'A clone, or a snapshot as for serve', type: 'string', demandOption: true })
    .option('clones', clonesOption)
    .option('to', {
      describe: 'The file; - for standard output',
      type: 'string',
      requiresArg: true,
      demandOption: true,
    })
    .option('format', { describe: 'Of the image', choices: ['qcow2', 'raw'] as const, default: 'qcow2' as const })
    .option('delta-only', {
      describe: 'Of a clone only what was written, as a qcow2 over --backing',
      type: 'boolean',
      default: false,
    })
    .option('backing', {
      describe: "The snapshot's disk that the delta is over: a raw image, or an NBD URI such as nbd://HOST/CLONE@base",
      type: 'string',
      requiresArg: true,
    })
    .option('force', { describe: 'Replace the file if it is there', type: 'boolean', default: false });
}

async function exportDisk(given: ExportArguments): Promise<void> {
  if (given.deltaOnly && given.format !== 'qcow2') {
    throw new UserError('--delta-only needs --format qcow2: a raw image has no backing file.');
  }
  if (given.deltaOnly !== (given.backing !== undefined)) {
    throw new UserError('--delta-only and --backing go together: the delta is over the disk that --backing names.');
  }
  if (isCloneName(given.what)) {
    await withClones(given, { reads: true }, (clones) => exportClone(given, clones));
  } else {
    await exportSnapshot(given);
  }
}

async function exportClone(given: ExportArguments, clones: CloneService): Promise<void> {
  const shaping = ['owner', 'modeMask', 'into', 'size', 'free', 'inodes', 'uuid', 'label'] as const;
  if (shaping.some((name) => given[name] !== undefined)) {
    throw new UserError('A clone has the layout that it was made with: leave the options out that shape a disk.');
  }
  const view = await clones.view(given.what);
  try {
    tellConnected(given.what, view.connections);
    await writeImage(given, view, { isEncrypted: view.record.isEncrypted });
  } finally {
    await view.close();
  }
}

async function exportSnapshot(given: ExportArguments): Promise<void> {
  if (given.deltaOnly) throw new UserError('--delta-only needs a clone: to a snapshot nothing was written.');
  const placed = parsePlacedSelector(given.what);
  const into = intoOption(given.into);
  const layout = await layoutRequest(given);
  const closers = new Closers();
  try {
    const store = await openChosen(chooseStore(given, commandLog(given)));
    closers.add(() => store.close());
    const parts = partsOf(store.snapshots, [placed], into);
    const opened = await openSnapshotImage({ store, parts, layout, layoutVersion: LAYOUT_VERSION });
    closers.add(() => opened.close());
    const { image } = opened;
    const source = new StatusDevice(new ReadOnlyDevice(image), image, undefined);
    await writeImage(given, source, { isEncrypted: store.repository.isEncrypted });
    await closers.close();
  } catch (error) {
    await closers.closeBecause(error);
  }
}

/** Writes the image, whole or not at all; a signal is a reason to stop, too. */
async function writeImage(
  given: ExportArguments,
  source: ImageSource,
  { isEncrypted }: { readonly isEncrypted: boolean },
): Promise<void> {
  const { to, format, backing, force } = given;
  if (isEncrypted) process.stderr.write('The store is encrypted; the image is not: it is written in plain text.\n');
  const stage = openProgress(given.logLevel).begin('MiB', Math.ceil(source.sizeBytes / MiB));
  const onProgress = countMebibytes(stage, stopOnSignal());
  const write = (sink: ImageSink) =>
    format === 'raw' ? writeRawImage(source, sink, onProgress) : writeQcow2Image(source, sink, { backing, onProgress });
  try {
    if (to === STDOUT) {
      if (process.stdout.isTTY) throw new UserError('An image is not for a terminal: name a file, or a pipe.');
      await write(streamSink(process.stdout));
      return;
    }
    const file = await createImageFile(to, { replace: force });
    try {
      await write(file.sink);
      await file.finish();
    } catch (error) {
      await file.discard();
      throw error;
    }
    process.stderr.write(`${to} is written: a ${format} image of ${formatBytes(source.sizeBytes)}.\n`);
  } finally {
    stage.end();
  }
}

/** Throws when called after a signal. */
function stopOnSignal(): () => void {
  let signal: NodeJS.Signals | undefined;
  new EndSignals().onSignal((received) => {
    signal = received;
  });
  return () => {
    if (signal !== undefined) throw new UserError(`Stopped by ${signal}; nothing was kept.`, { exitCode: 1 });
  };
}

function countMebibytes(stage: ProgressStage, check: () => void): (bytes: number) => void {
  let bytes = 0;
  let told = 0;
  return (more) => {
    check();
    bytes += more;
    const whole = Math.floor(bytes / MiB);
    if (whole > told) stage.advance(whole - told);
    told = whole;
  };
}
