/** The options for how a store is read: who reads it, and with how much memory. */
import type { Argv } from 'yargs';
import { CACHE_MEMORY_BYTES_DEFAULT, INFLIGHT_MEMORY_BYTES_DEFAULT } from '../core/limits.ts';
import { defaultSize } from './arguments.ts';

export interface ReadArguments {
  readonly source: 'native' | 'plakar';
  readonly cacheMemory: string;
  readonly inflightMemory: string;
}

/** Adds the options to a command. */
export function readOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('source', {
      describe: "Who reads file contents: kloset-nbd itself, or the installed plakar's cat",
      choices: ['native', 'plakar'] as const,
      default: 'native' as const,
    })
    .option('cache-memory', {
      describe: 'Memory for decoded chunks',
      type: 'string',
      requiresArg: true,
      default: defaultSize(CACHE_MEMORY_BYTES_DEFAULT),
    })
    .option('inflight-memory', {
      describe: 'Memory for bytes being fetched, decoded or sent',
      type: 'string',
      requiresArg: true,
      default: defaultSize(INFLIGHT_MEMORY_BYTES_DEFAULT),
    });
}
