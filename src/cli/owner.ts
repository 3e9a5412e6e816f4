import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { UserError } from '../core/errors.ts';
import type { Owner } from '../ext4/parameters.ts';

const run = promisify(execFile);

/** `USER[:GROUP]` or `UID[:GID]`, as chown takes them, looked up on this machine. Without a group: the user's own. */
export async function parseOwner(text: string): Promise<Owner> {
  const [user = '', group, ...rest] = text.split(':');
  if (user === '' || group === '' || rest.length > 0)
    throw new UserError(`--owner ${text}: write USER[:GROUP] or UID[:GID].`);
  const account = await lookUp('passwd', user);
  if (account === undefined && !isNumber(user)) {
    throw new UserError(
      `--owner ${text}: this machine has no user "${user}". Use the numeric id, such as --owner 999:999.`,
    );
  }
  const uid = account === undefined ? Number(user) : Number(account[2]);
  if (group === undefined) return { uid, gid: account === undefined ? uid : Number(account[3]) };
  const found = isNumber(group) ? group : (await lookUp('group', group))?.[2];
  if (found === undefined) {
    throw new UserError(`--owner ${text}: this machine has no group "${group}". Use the numeric id.`);
  }
  return { uid, gid: Number(found) };
}

function isNumber(text: string): boolean {
  return /^\d+$/.test(text);
}

/** The fields of an account by name or number. getent asks every source of accounts the machine has, not just its files. */
async function lookUp(database: 'passwd' | 'group', key: string): Promise<string[] | undefined> {
  try {
    const { stdout } = await run('getent', ['--', database, key]);
    return stdout.trim().split(':');
  } catch {
    return undefined; // No such account, or no getent: either way only numbers will do.
  }
}
