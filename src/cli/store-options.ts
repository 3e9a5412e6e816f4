/** The options for which store is read and how, the same for every command. */
import type { Argv } from 'yargs';
import { FETCH_CONCURRENCY_DEFAULT, FETCH_TIMEOUT_MS_DEFAULT } from '../kloset/fetch-limits.ts';

/** Adds the options to all commands. */
export function storeOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('store', {
      describe:
        "The store's location, as for plakar's at: kloset-nbd at LOCATION COMMAND. @NAME: from plakar's configuration",
      type: 'string',
      requiresArg: true,
      defaultDescription: "PLAKAR_REPOSITORY, plakar's default store, or ~/.plakar",
    })
    .option('keyfile', {
      describe: "File that holds the store's passphrase; else plakar's configuration, PLAKAR_PASSPHRASE, or a prompt",
      type: 'string',
      requiresArg: true,
    })
    .option('fetch-timeout', {
      describe: 'How long a read of the store is tried again before it fails',
      type: 'string',
      requiresArg: true,
      default: `${FETCH_TIMEOUT_MS_DEFAULT / 1000}s`,
    })
    .option('fetch-concurrency', {
      describe: 'Requests to the store under way at once',
      type: 'string',
      requiresArg: true,
      default: `${FETCH_CONCURRENCY_DEFAULT}`,
    })
    .option('ignore-damaged-states', {
      describe: 'Open a store without those of its states that are damaged: what only they list is missing',
      type: 'boolean',
      default: false,
    })
    .option('plakar', {
      describe: 'The plakar program, for stores that only plakar opens and for --source plakar',
      type: 'string',
      requiresArg: true,
      default: 'plakar',
    })
    .option('through-plakar', {
      describe: 'Read the store through a plakar server of our own also where kloset-nbd reads it itself',
      type: 'boolean',
      default: false,
    })
    .option('allow-open-loopback', {
      describe:
        "Let that server listen on this host's loopback where it cannot have a network namespace: everybody on the host can then write into the store",
      type: 'boolean',
      default: false,
    });
}
