/** What plakar's s3 integration takes from a location and its store's configuration, read the same way. Pure. */
import { UserError } from '../core/errors.ts';

/** A store's options as plakar's configuration has them: names to texts. */
export type StoreOptionTexts = Readonly<Record<string, string>>;

export interface S3Settings {
  readonly host: string;
  /** 0: the protocol's own. */
  readonly port: number;
  readonly useTls: boolean;
  readonly verifyCertificate: boolean;
  readonly bucket: string;
  /** Empty, or ends with a slash; begins with none. */
  readonly prefix: string;
  /** Bucket in the path rather than in the host's name. */
  readonly pathStyle: boolean;
  /** Undefined: the server is asked for it. */
  readonly region: string | undefined;
  /** 32 bytes that the server decrypts with (SSE-C). */
  readonly customerKey: Buffer | undefined;
}

/**
 * `s3://HOST[:PORT]/BUCKET[/PREFIX]`, with the options `endpoint`, `port`, `root`, `virtual_host`, `use_tls`,
 * `tls_insecure_no_verify` and `sse_customer_key` of plakar, and `region` of ours. Throws UserError.
 */
export function parseS3Location(location: string, options: StoreOptionTexts, region?: string): S3Settings {
  const [, authority = '', rawPath = ''] = /^s3:\/\/([^/?#]*)([^?#]*)$/i.exec(location) ?? [];
  const path = decodePath(rawPath);
  if (authority.includes('@')) throw new UserError('Keys do not belong into an s3:// location: give them as options.');
  const virtualHost = flag(options, 'virtual_host', false);
  const endpoint = (options.endpoint ?? '')
    .trim()
    .replace(/^https?:\/\//i, '')
    .replace(/^\.|\/$/g, '');
  let where = { hostAndPort: authority, source: options.root || path };
  if (virtualHost) {
    if (endpoint === '') throw new UserError('A store with virtual_host=true needs the option endpoint as well.');
    const [name = ''] = splitPort(authority);
    const bucket = name.replace(/\.$/, '').replace(`.${endpoint}`, '');
    where = { hostAndPort: endpoint, source: `${bucket}/${path.replace(/^\/+/, '')}` };
  } else if (endpoint !== '' && endpoint !== authority) {
    where = { hostAndPort: endpoint, source: options.root || `${authority}/${path.replace(/^\/+/, '')}` };
  }
  const [host = '', port = options.port ?? '0'] = splitPort(where.hostAndPort);
  const [bucket = '', ...rest] = where.source.replace(/^\/+/, '').split('/');
  const prefix = rest.join('/').replace(/^\/+|\/+$/g, '');
  if (host === '' || bucket === '') {
    throw new UserError(`"${location}" names no store: write s3://HOST/BUCKET or s3://HOST/BUCKET/PREFIX.`);
  }
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) throw new UserError(`"${port}" is no port.`);
  return {
    host,
    port: Number(port),
    useTls: flag(options, 'use_tls', true),
    verifyCertificate: !flag(options, 'tls_insecure_no_verify', false),
    bucket,
    prefix: prefix === '' ? '' : `${prefix}/`,
    pathStyle: !virtualHost,
    region: options.region ?? regionOf(host, region),
    customerKey: customerKey(options.sse_customer_key),
  };
}

/** How messages name the store: without keys, which are no part of it. */
export function nameOfS3Store({ host, port, bucket, prefix }: S3Settings): string {
  const origin = host.includes(':') ? `[${host}]` : host;
  return `s3://${origin}${port === 0 ? '' : `:${port}`}/${bucket}/${prefix}`.replace(/\/$/, '');
}

/** Amazon's endpoints carry their region. Another server's region is not what the environment says of Amazon's. */
function regionOf(host: string, fromEnvironment: string | undefined): string | undefined {
  const named = /(?:^|\.)s3[.-](?:dualstack\.)?([a-z]{2}-[a-z-]+-\d)\.amazonaws\.com(?:\.cn)?$/.exec(host)?.[1];
  return named ?? (isAmazon(host) ? fromEnvironment : undefined);
}

export function isAmazon(host: string): boolean {
  return /(?:^|\.)amazonaws\.com(?:\.cn)?$/.test(host);
}

/** Go's ParseBool, which plakar reads these with. */
export function flag(options: StoreOptionTexts, name: string, otherwise: boolean): boolean {
  const text = options[name];
  if (text === undefined) return otherwise;
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new UserError(`The store's option ${name} is neither true nor false.`);
}

/** `HOST:PORT` or `[ADDRESS]:PORT`, or without the port. */
function splitPort(text: string): [host: string, port?: string] {
  const [, host = text, port] = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(text) ?? [];
  const name = host.replace(/^\[|\]$/g, '');
  return port === undefined ? [name] : [name, port];
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch (error) {
    throw new UserError(`"${path}" has a % that begins no escape.`, { cause: error });
  }
}

function customerKey(text: string | undefined): Buffer | undefined {
  if (text === undefined || text === '') return undefined;
  const key = Buffer.from(text, 'base64');
  if (key.length !== 32) throw new UserError("The store's option sse_customer_key is not 32 bytes in base64.");
  return key;
}
