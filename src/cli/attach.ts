import type { Argv, CommandModule } from 'yargs';
import { parseExportAddress } from '../attach/address.ts';
import { attach } from '../attach/attachment.ts';
import { type AttachMethod, attachMethods } from '../attach/disk.ts';
import { findLeavingSymlinks } from '../attach/leaving-symlinks.ts';
import type { GlobalArguments } from './arguments.ts';
import { EndSignals } from './end-signals.ts';

interface AttachArguments extends GlobalArguments {
  readonly export: string;
  readonly mountPoint: string;
  readonly readOnly: boolean;
  readonly attachBy: AttachMethod | undefined;
}

export const attachCommand: CommandModule<object, AttachArguments> = {
  command: 'attach <export> <mountPoint>',
  describe: 'Mount an export of a running server, by the best way that this machine has',
  builder: (yargs) => options(yargs) as unknown as Argv<AttachArguments>,
  handler: attachExport,
};

function options(yargs: Argv<object>) {
  return yargs
    .positional('export', {
      describe: 'nbd://HOST:PORT/NAME, nbd+unix:///NAME?socket=PATH, or NAME on this machine',
      type: 'string',
      demandOption: true,
    })
    .positional('mountPoint', { describe: 'A directory', type: 'string', demandOption: true })
    .option('read-only', { describe: 'Mount it read-only', type: 'boolean', default: false })
    .option('attach-by', {
      describe: "The kernel's nbd client, nbdfuse and a loop device, or nbdfuse and fuse2fs",
      choices: attachMethods,
      defaultDescription: 'the first that works',
    })
    .example('$0 attach latest /mnt', 'mount it; kloset-nbd detach /mnt takes it down');
}

async function attachExport(given: AttachArguments): Promise<void> {
  const { readOnly, attachBy: method, mountPoint } = given;
  const address = parseExportAddress(given.export);
  const signals = new EndSignals();
  const { ending } = signals;
  const { record } = await signals.during(() => attach({ address, mountPoint, readOnly, method, ending }));
  process.stdout.write(`attached ${record.uri} as ${record.device} at ${record.mountPoint} (${record.method})\n`);
  const leaving = await findLeavingSymlinks(record.mountPoint!);
  if (leaving.length === 0) return;
  process.stderr.write(
    `kloset-nbd: symlinks leave the mounted tree and reach this machine's own files: ${leaving.join(', ')}; "kloset-nbd inspect" lists all.\n`,
  );
}
