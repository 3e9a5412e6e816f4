import type { CommandModule } from 'yargs';
import { detach } from '../attach/attachment.ts';
import type { GlobalArguments } from './arguments.ts';

interface DetachArguments extends GlobalArguments {
  readonly what: string;
}

export const detachCommand: CommandModule<object, DetachArguments> = {
  command: 'detach <what>',
  describe: 'Unmount what attach mounted, and wait until its device is free',
  builder: (yargs) =>
    yargs.positional('what', {
      describe: 'The mount point, or the device',
      type: 'string',
      demandOption: true,
    }) as never,
  handler: async ({ what }) => {
    const was = await detach(what);
    process.stdout.write(was ? `detached ${what}\n` : `nothing of kloset-nbd is attached at ${what}\n`);
  },
};
