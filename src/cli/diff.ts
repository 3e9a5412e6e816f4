import type { Argv, CommandModule } from 'yargs';
import { describeDiff } from './clone-text.ts';
import { type ClonesArguments, clonesOption, tellConnected, withClones } from './clones-options.ts';

interface DiffArguments extends ClonesArguments {
  readonly clone: string;
  readonly json: boolean;
}

export const diffCommand: CommandModule<object, DiffArguments> = {
  command: 'diff <clone>',
  describe: 'List the files, and the bytes of them, that were written to in a clone since its snapshot',
  builder: (yargs) =>
    yargs
      .positional('clone', { describe: 'The clone', type: 'string', demandOption: true })
      .option('clones', clonesOption)
      .option('json', {
        describe: 'One JSON object instead of text',
        type: 'boolean',
        default: false,
      }) as unknown as Argv<DiffArguments>,
  handler: async (given) => {
    const { diff, connections } = await withClones(given, { reads: true }, (clones) => clones.diff(given.clone));
    tellConnected(given.clone, connections);
    const json = () => `${JSON.stringify({ clone: given.clone, connected: connections > 0, ...diff }, undefined, 2)}\n`;
    process.stdout.write(given.json ? json() : describeDiff(diff));
  },
};
