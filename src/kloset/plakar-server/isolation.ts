/** Which programs keep a plakar server's port to itself, and how they are called. Pure but for the look at PATH. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { UserError } from '../../core/errors.ts';
import type { RelayOrders } from './messages.ts';

/** Where the namespace's resolver is: slirp4netns has it there, and pasta is told to. */
const NAMESERVER = '10.0.2.3';

export interface Isolation {
  readonly network: RelayOrders['network'];
  readonly nameserver?: string;
  /** What the relay's command line is put behind. */
  readonly enter: readonly string[];
  /** The program that gives the namespace of a process its way out; undefined if it needs none. */
  connect?(pid: number): readonly string[];
}

export interface IsolationNeeds {
  /** The store is not on this machine. */
  readonly needsNetwork: boolean;
  /** Go on without a namespace if there cannot be one. */
  readonly allowOpenLoopback: boolean;
  readonly isRoot: boolean;
  /** Whether a program is installed. */
  isInstalled(name: string): boolean;
}

/** plakar's server on the host's own loopback. */
export const openLoopback: Isolation = { network: 'host', enter: [] };

/** Throws UserError if a program is missing and the open loopback is not allowed. */
export function chooseIsolation(needs: IsolationNeeds): Isolation {
  const { needsNetwork, allowOpenLoopback, isRoot, isInstalled } = needs;
  const missing = (what: string) => {
    if (allowOpenLoopback) return openLoopback;
    throw new UserError(
      `plakar has to serve this store in a network namespace of its own, and ${what}. ${allowanceAdvice}`,
    );
  };
  if (!isInstalled('unshare') || !isInstalled('setpriv')) {
    return missing('unshare and setpriv (Debian: util-linux) are not installed');
  }
  const user = isRoot ? [] : ['--user', '--map-current-user', '--keep-caps'];
  const enter = ['unshare', ...user, '--net', '--', 'unshare', '--mount', '--pid', '--fork', '--kill-child=KILL', '--'];
  if (!needsNetwork) {
    return isInstalled('ip') ? { network: 'none', enter } : missing('ip (Debian: iproute2) is not installed');
  }
  const outbound = { network: 'outbound', nameserver: NAMESERVER, enter } as const;
  // pasta gives up root's rights before it opens the namespace that root made.
  if (isInstalled('pasta') && !isRoot) return { ...outbound, connect: connectByPasta };
  if (isInstalled('slirp4netns')) return { ...outbound, connect: connectBySlirp };
  return missing(
    isRoot ? 'slirp4netns is not installed' : 'neither pasta (Debian: passt) nor slirp4netns is installed',
  );
}

/** Ends a refusal. */
export const allowanceAdvice =
  '--allow-open-loopback does without: then every user of this host can write into the store while it is served.';

function connectByPasta(pid: number): readonly string[] {
  const namespaces = ['--userns', `/proc/${pid}/ns/user`, '--netns', `/proc/${pid}/ns/net`];
  // Nothing is forwarded inwards, and neither the gateway's address nor a port leads to the host's loopback.
  const closed = ['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none', '--no-map-gw'];
  return ['pasta', '-f', '-q', '--config-net', ...closed, '--dns-forward', NAMESERVER, ...namespaces];
}

function connectBySlirp(pid: number): readonly string[] {
  return ['slirp4netns', '--configure', '--disable-host-loopback', `${pid}`, 'tap0'];
}

/**
 * Runs the words behind it, and kills that process when its own standard input ends. A shell gives what it puts into the
 * background no input: hence the copy.
 */
export const TETHER = [
  'sh',
  '-c',
  'exec 3<&0; "$@" & child=$!; (cat <&3 >/dev/null; kill -9 $child 2>/dev/null) & wait $child',
  'sh',
] as const;

/** Whether a program is on PATH, or where the system keeps those for its administrator. */
export function isOnPath(name: string, path = process.env.PATH ?? ''): boolean {
  return [...path.split(delimiter), '/usr/sbin', '/sbin'].some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
