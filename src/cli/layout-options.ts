/** The options that shape a disk, the same for every command that makes one. */
import type { Argv } from 'yargs';
import { UserError } from '../core/errors.ts';
import { LABEL_BYTES_MAX } from '../ext4/format.ts';
import type { LayoutRequest } from '../ext4/parameters.ts';
import { splitPlace } from '../source/compose-tree.ts';
import { freeOption, sizeOption } from './arguments.ts';
import { parseOwner } from './owner.ts';

export interface LayoutArguments {
  readonly owner: string | undefined;
  readonly modeMask: string | undefined;
  readonly into: string | undefined;
  readonly size: string | undefined;
  readonly free: string | undefined;
  readonly inodes: string | undefined;
  readonly uuid: string | undefined;
  readonly label: string | undefined;
}

/** Inode numbers have 32 bits. */
const INODES_MAX = 2 ** 32 - 1;

/** Adds the options to a command. */
export function layoutOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('owner', {
      describe: 'Every file belongs to USER[:GROUP] or UID[:GID] instead of its recorded owner',
      type: 'string',
      requiresArg: true,
    })
    .option('mode-mask', {
      describe: 'Permission bits that stay, in octal (such as 0755); the others are taken away from every file',
      type: 'string',
      requiresArg: true,
    })
    .option('into', {
      describe:
        "Put the snapshot below this directory of the disk, so that lost+found is not among the snapshot's files",
      type: 'string',
      requiresArg: true,
    })
    .option('size', { describe: 'Size of the disk in all, such as 10G', type: 'string', requiresArg: true })
    .option('free', {
      describe: 'Free space beyond the data: a share (25%) or a size (5G)',
      type: 'string',
      requiresArg: true,
      defaultDescription: '25%, at least 1G',
      conflicts: 'size',
    })
    .option('inodes', {
      describe: 'Inodes for new files',
      type: 'string',
      requiresArg: true,
      defaultDescription: '12% of those in use, at least 65536',
    })
    .option('uuid', {
      describe: "The filesystem's UUID",
      type: 'string',
      requiresArg: true,
      defaultDescription: 'made from the snapshot and these options',
    })
    .option('label', {
      describe: `The filesystem's label, at most ${LABEL_BYTES_MAX} bytes`,
      type: 'string',
      requiresArg: true,
      defaultDescription: "kloset- and the snapshot's first 8 digits",
    });
}

/** What a layout is asked for. Rejects with UserError (exit 64) naming the option. */
export async function layoutRequest(given: LayoutArguments): Promise<LayoutRequest> {
  const { owner, modeMask, size, free, inodes, uuid, label } = given;
  return {
    owner: owner === undefined ? undefined : await parseOwner(owner),
    modeMask: modeMask === undefined ? undefined : modeMaskOption(modeMask),
    sizeBytes: size === undefined ? undefined : sizeOption('size', size),
    free: free === undefined ? undefined : freeOption(free),
    spareInodes: inodes === undefined ? undefined : inodesOption(inodes),
    uuid: uuid === undefined ? undefined : uuidOption(uuid),
    label: label === undefined ? undefined : labelOption(label),
  };
}

/** The directory of `--into`; slashes at its ends mean nothing. Throws UserError. */
export function intoOption(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const place = text.replace(/^\/+|\/+$/g, '');
  splitPlace(place);
  return place;
}

function modeMaskOption(text: string): number {
  if (!/^(0o?)?[0-7]{1,4}$/.test(text)) {
    throw new UserError(`--mode-mask ${text}: write the permission bits that stay in octal, such as 0755.`);
  }
  return Number.parseInt(text.replace('0o', ''), 8);
}

function inodesOption(text: string): number {
  if (!/^\d{1,10}$/.test(text) || Number(text) > INODES_MAX) {
    throw new UserError(`--inodes ${text}: write a number of inodes for new files, at most ${INODES_MAX}.`);
  }
  return Number(text);
}

function uuidOption(text: string): string {
  if (!/^[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}$/i.test(text)) {
    throw new UserError(`--uuid ${text}: write 32 hex digits, such as 6f1c9a52-3e0d-4b7a-9d58-2f4f0c7e1b36.`);
  }
  return text;
}

function labelOption(text: string): string {
  if (Buffer.byteLength(text) > LABEL_BYTES_MAX || text.includes('\0')) {
    throw new UserError(`--label ${text}: a label has at most ${LABEL_BYTES_MAX} bytes.`);
  }
  return text;
}
