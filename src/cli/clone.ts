import type { Argv, CommandModule } from 'yargs';
import { exitCodes } from '../core/errors.ts';
import { createCloneCommand } from './clone-create.ts';
import { describeCheck, describeInfo, describeList, summaryJson } from './clone-text.ts';
import {
  type ClonesArguments,
  clonesDirectory,
  clonesOption,
  isDirectory,
  tellConnected,
  ttlOption,
  withClones,
} from './clones-options.ts';

interface NameArguments extends ClonesArguments {
  readonly name: string;
}

interface ForceArguments extends NameArguments {
  readonly force: boolean;
}

interface JsonArguments extends ClonesArguments {
  readonly json: boolean;
}

export const cloneCommand: CommandModule = {
  command: 'clone',
  describe: 'Make, list and remove clones: named disks over a snapshot, each with writes of its own',
  builder: (yargs) =>
    yargs
      .option('clones', clonesOption)
      .command(createCloneCommand)
      .command(listCommand)
      .command(infoCommand)
      .command(copyCommand)
      .command(resetCommand)
      .command(removeCommand)
      .command(checkCommand)
      .command(protectCommand)
      .command(unprotectCommand)
      .command(ttlCommand)
      .demandCommand(1, 'Name what to do: create, list, info, copy, reset, remove, check, protect, unprotect or ttl.'),
  handler: () => {},
};

const json = { describe: 'JSON instead of text', type: 'boolean', default: false } as const;
const named = <T>(yargs: Argv<T>) =>
  yargs.positional('name', { describe: 'The clone', type: 'string', demandOption: true });
const forced = <T>(yargs: Argv<T>) =>
  named(yargs).option('force', {
    describe: 'Disconnect its clients first; without it the command is refused while there are any',
    type: 'boolean',
    default: false,
  });

const listCommand: CommandModule<object, JsonArguments> = {
  command: 'list',
  describe: 'List the clones; those whose time is over are removed',
  builder: (yargs) => yargs.option('json', json) as unknown as Argv<JsonArguments>,
  handler: async (given) => {
    const isThere = given.clones !== undefined || (await isDirectory(clonesDirectory(given)));
    const list = isThere
      ? await withClones(given, { reads: false }, (clones) => clones.list())
      : { clones: [], unreadable: [] };
    for (const { reason } of list.unreadable) process.stderr.write(`kloset-nbd: ${reason}\n`);
    print(given.json ? toJson(list.clones.map(summaryJson)) : describeList(list));
  },
};

const infoCommand: CommandModule<object, NameArguments & JsonArguments> = {
  command: 'info <name>',
  describe: 'Tell what a clone is, how much of it was written, and which files',
  builder: (yargs) => named(yargs).option('json', json) as unknown as Argv<NameArguments & JsonArguments>,
  handler: async (given) => {
    const info = await withClones(given, { reads: true }, (clones) => clones.info(given.name));
    const { dirtyBytes, readOnlyReason, diff } = info;
    print(given.json ? toJson({ ...summaryJson(info), dirtyBytes, readOnlyReason, diff }) : describeInfo(info));
  },
};

const copyCommand: CommandModule<object, NameArguments & { readonly new: string }> = {
  command: 'copy <name> <new>',
  describe: 'Copy a clone with what was written to it, sharing disk blocks where the file system can',
  builder: (yargs) =>
    named(yargs).positional('new', {
      describe: 'Name of the copy',
      type: 'string',
      demandOption: true,
    }) as unknown as Argv<NameArguments & { readonly new: string }>,
  handler: async (given) => {
    const { connections } = await withClones(given, { reads: false }, (clones) => clones.copy(given.name, given.new));
    tellConnected(given.name, connections);
    print(`Clone "${given.new}" is a copy of "${given.name}".\n`);
  },
};

const resetCommand: CommandModule<object, ForceArguments> = {
  command: 'reset <name>',
  describe: 'Give up what was written to a clone: it is the snapshot again',
  builder: (yargs) => forced(yargs) as unknown as Argv<ForceArguments>,
  handler: async (given) => {
    await withClones(given, { reads: false }, (clones) => clones.reset(given.name, { force: given.force }));
    print(`Clone "${given.name}" is as its snapshot again.\n`);
  },
};

const removeCommand: CommandModule<object, ForceArguments> = {
  command: 'remove <name>',
  aliases: ['rm'],
  describe: 'Remove a clone with what was written to it',
  builder: (yargs) => forced(yargs) as unknown as Argv<ForceArguments>,
  handler: async (given) => {
    await withClones(given, { reads: false }, (clones) => clones.remove(given.name, { force: given.force }));
    print(`Clone "${given.name}" is removed.\n`);
  },
};

const checkCommand: CommandModule<object, NameArguments & JsonArguments> = {
  command: 'check <name>',
  describe: 'Read all that a clone has stored and compare it with its checksums; exit 65 if something is damaged',
  builder: (yargs) => named(yargs).option('json', json) as unknown as Argv<NameArguments & JsonArguments>,
  handler: async (given) => {
    const found = await withClones(given, { reads: true }, (clones) => clones.check(given.name));
    print(given.json ? toJson(found) : describeCheck(found));
    if (!found.isSound) process.exitCode = exitCodes.damagedData;
  },
};

const protectCommand = changeCommand('protect <name>', 'Refuse reset, removal and expiry of a clone', {
  isProtected: true,
  done: 'is protected',
});
const unprotectCommand = changeCommand('unprotect <name>', 'Allow them again', {
  isProtected: false,
  done: 'is no longer protected',
});

const ttlCommand: CommandModule<object, NameArguments & { readonly ttl: string }> = {
  command: 'ttl <name> <ttl>',
  describe: 'Let a clone be removed so long from now, such as 7d; "none": never',
  builder: (yargs) =>
    named(yargs).positional('ttl', { type: 'string', demandOption: true }) as unknown as Argv<
      NameArguments & { readonly ttl: string }
    >,
  handler: async ({ name, ttl, ...given }) => {
    const expiresMs = ttl === 'none' ? null : Date.now() + ttlOption(ttl);
    await withClones(given, { reads: false }, (clones) => clones.change(name, { expiresMs }));
    const until = expiresMs === null ? 'until it is removed' : `until ${new Date(expiresMs).toISOString()}`;
    print(`Clone "${name}" lives ${until}.\n`);
  },
};

function changeCommand(
  command: string,
  describe: string,
  { isProtected, done }: { readonly isProtected: boolean; readonly done: string },
): CommandModule<object, NameArguments> {
  return {
    command,
    describe,
    builder: (yargs) => named(yargs) as unknown as Argv<NameArguments>,
    handler: async (given) => {
      await withClones(given, { reads: false }, (clones) => clones.change(given.name, { isProtected }));
      print(`Clone "${given.name}" ${done}.\n`);
    },
  };
}

function toJson(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

function print(text: string): void {
  process.stdout.write(text);
}
