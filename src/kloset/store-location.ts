/** From a location, as an operator or plakar's configuration gives it, to the store it names. */
import path from 'node:path';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { DeferredStore } from './deferred-store.ts';
import { FETCH_CONCURRENCY_DEFAULT, FETCH_TIMEOUT_MS_DEFAULT, STALL_TIMEOUT_MS } from './fetch-limits.ts';
import { HttpStore } from './http-store.ts';
import { LocalStore } from './local-store.ts';
import { openServedStore } from './open-served-store.ts';
import type { ResolvedStore } from './plakar-config.ts';
import { PtarHttpStore } from './ptar-http-store.ts';
import { PtarStore } from './ptar-store.ts';
import { ReadAheadStore } from './read-ahead-store.ts';
import type { RemoteStore } from './remote-store.ts';
import { RetryingStore } from './retrying-store.ts';
import { flag, nameOfS3Store, parseS3Location } from './s3-location.ts';
import type { KlosetStore } from './store.ts';

export interface OpenOptions {
  /** Where keys and regions of object stores may come from. */
  readonly environment: NodeJS.ProcessEnv;
  /** Requests under way at once. */
  readonly fetchConcurrency?: number;
  /** How long a read keeps trying, milliseconds. */
  readonly fetchTimeoutMs?: number;
  readonly log?: Log;
  /** Who opens what is not read natively. */
  readonly plakar?: PlakarOptions;
}

export interface PlakarOptions {
  /** The program. */
  readonly command: string;
  /** What follows its `at`; the location itself, if nothing is given. */
  readonly location?: string;
  /** Lets its server listen on the loopback of this host where it cannot have a namespace of its own. */
  readonly allowOpenLoopback: boolean;
  /** Reads through it also what could be read natively. */
  readonly always: boolean;
}

/** How a location is read: by which back-end of ours, or by plakar. */
export type LocationKind = 'directory' | 'archive' | 'plakar-server' | 'web-archive' | 's3' | 'other';

/**
 * As plakar splits it: a scheme of two characters and more before the first colon, anything else is a path. A path that
 * ends in `.ptar` is an archive whatever the scheme says.
 */
export function classifyLocation(location: string): { kind: LocationKind; scheme: string | undefined; rest: string } {
  const [, scheme, rest = location] = /^([a-z0-9+.-]{2,}):(?:\/\/)?(.*)$/is.exec(location) ?? [];
  const kind = kindOfScheme(scheme?.toLowerCase());
  return { kind: kind === 'directory' && rest.endsWith('.ptar') ? 'archive' : kind, scheme, rest };
}

function kindOfScheme(scheme: string | undefined): LocationKind {
  switch (scheme) {
    case undefined:
    case 'fs':
      return 'directory';
    case 'ptar':
      return 'archive';
    case 'http':
    case 'https':
      return 'plakar-server';
    case 'ptar+http':
    case 'ptar+https':
      return 'web-archive';
    case 's3':
      return 's3';
    default:
      return 'other';
  }
}

/**
 * The back-end for a resolved location; over a network, with retries. Nothing is read yet. Throws UserError for options
 * that make no sense.
 */
export function openResolvedStore({ location, options }: ResolvedStore, opening: OpenOptions): KlosetStore {
  const { kind, rest } = classifyLocation(location);
  const connectionsMax = opening.fetchConcurrency ?? FETCH_CONCURRENCY_DEFAULT;
  const network = { connectionsMax, stallTimeoutMs: STALL_TIMEOUT_MS };
  const throughPlakar = () => {
    const { command = 'plakar', allowOpenLoopback = false, location: at = location } = opening.plakar ?? {};
    const needsNetwork = kind !== 'directory' && kind !== 'archive';
    const server = { plakar: command, location: at, needsNetwork, allowOpenLoopback, log: opening.log };
    return overNetwork(openServedStore(server, network), opening);
  };
  if (opening.plakar?.always) return throughPlakar();
  switch (kind) {
    case 'directory':
      return retrying(new LocalStore(path.resolve(rest)), opening, { isNear: true });
    case 'archive':
      return retrying(new PtarStore(path.resolve(rest)), opening, { isNear: true });
    case 'plakar-server':
    case 'web-archive': {
      const url = parseUrl(location.replace(/^ptar\+/i, ''));
      const verifyCertificate = !flag(options, 'tls_no_verify', false);
      if (kind === 'web-archive')
        return overNetwork(new PtarHttpStore({ ...network, url, verifyCertificate }), opening);
      const { auth_token: authToken } = options;
      return overNetwork(new HttpStore({ ...network, url, verifyCertificate, authToken }), opening);
    }
    case 's3': {
      const { environment } = opening;
      const region = environment.AWS_REGION || environment.AWS_DEFAULT_REGION;
      const settings = parseS3Location(location, options, region);
      // Its client takes a third of a second and 25 MB to load.
      const load = async () => {
        const [{ S3Store }, { findS3Access }] = await Promise.all([
          import('./s3-store.ts'),
          import('./s3-credentials.ts'),
        ]);
        return new S3Store({ ...network, settings, access: findS3Access(settings.host, options, environment) });
      };
      return overNetwork(new DeferredStore(nameOfS3Store(settings), load), opening);
    }
    case 'other':
      return throughPlakar();
  }
}

/** Every request is tried again as needed, and small ones bring their surroundings along. */
function overNetwork(store: RemoteStore, opening: OpenOptions): KlosetStore {
  return new ReadAheadStore(retrying(store, opening));
}

function retrying(store: RemoteStore, opening: OpenOptions, options: { isNear?: boolean } = {}): RetryingStore {
  return new RetryingStore(store, {
    ...options,
    fetchTimeoutMs: opening.fetchTimeoutMs ?? FETCH_TIMEOUT_MS_DEFAULT,
    fetchConcurrency: opening.fetchConcurrency ?? FETCH_CONCURRENCY_DEFAULT,
    ...(opening.log === undefined ? {} : { log: opening.log }),
  });
}

/** Never quoted in full: an address can hold a password. */
function parseUrl(text: string): URL {
  try {
    return new URL(text);
  } catch (error) {
    throw new UserError(`The location is no ${text.split(':')[0]} address: write http://HOST:PORT/PATH.`, {
      cause: error instanceof Error ? error.name : undefined,
    });
  }
}
