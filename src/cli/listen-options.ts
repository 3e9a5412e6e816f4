/** The options for where and to whom a server listens. */
import type { Argv } from 'yargs';

export interface ListenArguments {
  readonly listen: readonly string[];
  readonly shared: boolean;
  readonly supervise: boolean;
}

/** Adds the options to a command. */
export function listenOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('listen', {
      describe: 'Where to listen: tcp://HOST:PORT (port 0: any free one) or unix:PATH; repeatable',
      type: 'string',
      array: true,
      nargs: 1,
      default: ['tcp://127.0.0.1:10809'],
    })
    .option('shared', {
      describe:
        'Let several clients write to one export at once. ext4 does not survive that: for cluster-aware clients only',
      type: 'boolean',
      default: false,
    })
    .option('supervise', {
      describe: 'Keep clients when the serving process dies: it is started again, and goes on. With --overlay DIR only',
      type: 'boolean',
      default: false,
    });
}
