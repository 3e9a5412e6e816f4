/** The kernel's nbd devices, as sysfs shows them. Source: drivers/block/nbd.c. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodes, UserError } from '../core/errors.ts';
import { findProgram } from './program.ts';

const BLOCK_DEVICES = '/sys/block';

/** Whether there are nbd devices, after loading the module if that is possible. */
export function hasNbdModule(): boolean {
  if (nbdDevices().length > 0) return true;
  const modprobe = findProgram('modprobe');
  if (modprobe === undefined) return false;
  try {
    execFileSync(modprobe, ['nbd'], { stdio: 'ignore' });
  } catch {
    // The kernel has no such module, or does not let us.
    return false;
  }
  return nbdDevices().length > 0;
}

/** `/dev/nbdN` that nobody is connected to. Throws UserError if all are taken. */
export function findFreeNbd(): string {
  const free = nbdDevices().find((name) => {
    const directory = join(BLOCK_DEVICES, name);
    return !existsSync(join(directory, 'pid')) && readFileSync(join(directory, 'size'), 'utf8').trim() === '0';
  });
  if (free !== undefined) return join('/dev', free);
  throw new UserError(
    'All nbd devices are in use: detach one, or load the module with more (modprobe nbd nbds_max=64).',
    {
      exitCode: exitCodes.failure,
    },
  );
}

function nbdDevices(): string[] {
  return readdirSync(BLOCK_DEVICES)
    .filter((name) => /^nbd\d+$/.test(name))
    .sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
}
