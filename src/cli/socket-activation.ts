/** Sockets that this process was started with: systemd's protocol of sd_listen_fds(3), which libnbd speaks too. */
import { UserError } from '../core/errors.ts';

/** The first descriptor handed over. */
const SD_LISTEN_FDS_START = 3;
/** No unit file has more sockets; a number beyond is no number of sockets. */
const SOCKETS_MAX = 1024;
/** How systemd names a connection that it has accepted itself (Accept=yes). */
const CONNECTION = 'connection';

export interface InheritedSockets {
  /** Descriptors of listening sockets. */
  readonly listening: readonly number[];
  /** Descriptor of a connection. */
  readonly connection: number | undefined;
}

/**
 * What `environment` says to the process `pid`; undefined if nothing. Takes it out, so that programs which this one starts
 * do not take it for theirs. Throws UserError.
 */
export function takeInheritedSockets(environment: NodeJS.ProcessEnv, pid: number): InheritedSockets | undefined {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = environment;
  // Meant for another process, which has passed on its environment.
  if (LISTEN_PID !== String(pid) || LISTEN_FDS === undefined) return undefined;
  delete environment.LISTEN_PID;
  delete environment.LISTEN_FDS;
  delete environment.LISTEN_FDNAMES;
  const count = Number(LISTEN_FDS);
  if (!/^\d+$/.test(LISTEN_FDS) || count > SOCKETS_MAX) {
    throw new UserError(`LISTEN_FDS=${LISTEN_FDS} in the environment is no number of sockets: unset it`);
  }
  if (count === 0) return undefined;
  const names = LISTEN_FDNAMES?.split(':') ?? [];
  if (count === 1 && names[0] === CONNECTION) return { listening: [], connection: SD_LISTEN_FDS_START };
  return { listening: Array.from({ length: count }, (_, i) => SD_LISTEN_FDS_START + i), connection: undefined };
}
