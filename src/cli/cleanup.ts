import type { CommandModule } from 'yargs';
import { listLeftOvers } from '../attach/sessions.ts';
import { takeDown } from '../attach/take-down.ts';
import type { GlobalArguments } from './arguments.ts';

export const cleanupCommand: CommandModule<object, GlobalArguments> = {
  command: 'cleanup',
  describe: 'Take down what killed runs of pg and attach left: mounts, devices, directories. What runs is not touched',
  handler: async () => {
    const leftOvers = await listLeftOvers();
    for (const { directory, record } of leftOvers) {
      await takeDown(directory, record);
      process.stdout.write(
        `removed ${directory}${record === undefined ? '' : ` (${record.kind} of ${record.export || 'the default export'})`}\n`,
      );
    }
    if (leftOvers.length === 0) process.stdout.write('There is nothing to clean up.\n');
  },
};
