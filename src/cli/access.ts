/** Where clients come in and what is asked of them: the options of listen-options.ts, judged together. */
import { lookup } from 'node:dns/promises';
import type { Socket } from 'node:net';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { AllowList, isLoopback } from '../nbd/addresses.ts';
import { type ListenAddress, type Listening, openConnection } from '../nbd/listener.ts';
import type { NbdServer } from '../nbd/server.ts';
import { TlsCredentials, type TlsTerms } from '../nbd/tls-credentials.ts';
import { listenOption, metricsOption } from './arguments.ts';
import type { ListenArguments } from './listen-options.ts';
import { takeInheritedSockets } from './socket-activation.ts';

export interface Access {
  readonly addresses: readonly ListenAddress[];
  /** The one connection to serve. */
  readonly connection: Socket | undefined;
  readonly tls: TlsTerms | undefined;
  readonly allowed: AllowList | undefined;
  /** Other machines may come in although TLS is not required. */
  readonly insecure: boolean;
}

/** Clients of a worker come from its supervisor, which has asked them everything. */
export function workerAccess({ listen }: ListenArguments): Access {
  const addresses = listen.map(listenOption);
  return { addresses, connection: undefined, tls: undefined, allowed: undefined, insecure: false };
}

/**
 * What the options mean. From here on SIGHUP has certificates and keys read again. Rejects with UserError; to be called
 * before anything is opened, since it takes the environment's sockets.
 */
export async function chooseAccess(given: ListenArguments, log: Log): Promise<Access> {
  const allowed = given.allow.length === 0 ? undefined : new AllowList(given.allow);
  const { addresses, connection } = chooseSockets(given, log);
  const tls = await chooseTls(given, log);
  const access = { addresses, connection, tls, allowed, insecure: given.insecure };
  if (given.metrics !== undefined) metricsOption(given.metrics);
  for (const [index, address] of addresses.entries()) {
    // Known before the store is opened, and a passphrase asked for.
    if ('host' in address && (await isExposed(address.host))) refuseExposure(access, `--listen ${given.listen[index]}`);
  }
  const { localAddress } = connection ?? {};
  if (localAddress !== undefined && !isLoopback(localAddress)) refuseExposure(access, 'the connection handed over');
  if (tls !== undefined) process.on('SIGHUP', () => void tls.credentials.reload());
  return access;
}

/** `--fd`, what systemd or libnbd has handed over, or `--listen`; the first of these there is. */
function chooseSockets(given: ListenArguments, log: Log): Pick<Access, 'addresses' | 'connection'> {
  const addresses = given.listen.map(listenOption);
  const inherited = takeInheritedSockets(process.env, process.pid);
  if (given.fd !== undefined) {
    if (!/^\d{1,6}$/.test(given.fd))
      throw new UserError(`--fd ${given.fd}: write the number of a descriptor, such as 0.`);
    return { addresses: [], connection: openConnection(Number(given.fd)) };
  }
  if (inherited === undefined) return { addresses, connection: undefined };
  const { listening, connection } = inherited;
  log.info({ listening, connection }, 'Sockets were handed over (LISTEN_FDS): --listen is not used.');
  return {
    addresses: listening.map((fd) => ({ fd })),
    connection: connection === undefined ? undefined : openConnection(connection),
  };
}

async function chooseTls(given: ListenArguments, log: Log): Promise<TlsTerms | undefined> {
  const { tls, tlsCertificates: certificates, tlsPsk: pskFile, tlsVerifyPeer: verifyPeer } = given;
  const hasFiles = certificates !== undefined || pskFile !== undefined;
  if (verifyPeer && certificates === undefined) {
    throw new UserError(
      '--tls-verify-peer needs --tls-certificates DIR, whose ca-cert.pem has the authority of clients.',
    );
  }
  if (!hasFiles && tls !== undefined && tls !== 'off') {
    throw new UserError(
      `--tls ${tls} needs --tls-certificates DIR or --tls-psk FILE: the README says how they are made.`,
    );
  }
  if (!hasFiles || tls === 'off') return undefined;
  const credentials = await TlsCredentials.load({ certificates, pskFile, verifyPeer }, log);
  return { credentials, required: tls === 'require' };
}

/** Whether a name or an address is more than this machine's own. One that is not known is refused when it is listened on. */
async function isExposed(host: string): Promise<boolean> {
  const found = await lookup(host, { all: true }).catch(() => []);
  return found.some(({ address }) => !isLoopback(address));
}

function refuseExposure({ tls, insecure }: Access, where: string): void {
  if (tls?.required === true || insecure) return;
  throw new UserError(
    `${where} can be reached from other machines, and without TLS whoever gets there has the disks: use --tls require ` +
      'with --tls-certificates DIR or --tls-psk FILE, or 127.0.0.1, or a Unix socket; --insecure listens there all the same.',
  );
}

export interface OpenDoors {
  /** Says where they are: not before all of them are open and somebody serves. */
  announce(): void;
  /** Settles when the one connection that was handed over has ended; undefined if there is none. */
  readonly connectionEnded: Promise<void> | undefined;
  /** Where clients connect, the first of these ways; empty for a connection that was handed over. */
  readonly uri: string;
  /** Every user of this machine could come in. */
  readonly hasTcp: boolean;
}

/** Opens the ways in. Rejects with UserError if one cannot be opened. */
export async function openDoors(
  access: Access,
  server: Pick<NbdServer, 'listen' | 'serve'>,
  log: Log,
): Promise<OpenDoors> {
  const listeners: Listening[] = [];
  for (const address of access.addresses) {
    const listener = await server.listen(address);
    // Sockets that were handed over are seen only now.
    if (listener.isExposed) refuseExposure(access, listener.uri);
    listeners.push(listener);
  }
  for (const listener of listeners) if (listener.isExposed) warnOfExposure(access, listener.uri, log);
  const { connection } = access;
  const connectionEnded = connection === undefined ? undefined : server.serve(connection);
  return {
    announce() {
      for (const { uri } of listeners) process.stdout.write(`ready ${uri}\n`);
    },
    connectionEnded,
    uri: listeners[0]?.uri ?? '',
    hasTcp: listeners.some(({ transport }) => transport === 'tcp') || connection?.localAddress !== undefined,
  };
}

function warnOfExposure({ tls, allowed }: Access, uri: string, log: Log): void {
  if (tls?.required !== true) {
    log.warn({ uri }, `${uri} takes clients from other machines without TLS: whoever gets there has the disks.`);
  } else if (allowed === undefined && !tls.credentials.clientsProveThemselves) {
    log.warn(
      { uri },
      `${uri} asks nobody who they are: --tls-verify-peer, --tls-psk without certificates, or --allow does.`,
    );
  }
}

/** Warns of an encrypted store whose content others on this machine could read. */
export function warnOfPlainDisks({ tls }: Access, { hasTcp }: OpenDoors, log: Log): void {
  if (!hasTcp || tls?.required === true) return;
  log.warn(
    {},
    'The store is encrypted, its disks are not: over TCP without TLS every local user can read them. Use --listen unix:PATH or --tls require.',
  );
}
