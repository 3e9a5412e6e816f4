/**
 * Keys for object stores: the store's own, the environment's, or those of a role, which expire and are renewed.
 *
 * minio 8.0.7 has a provider for roles, used here for web identities only: for instances and containers it reads
 * `AccessKeyID` where their services say `AccessKeyId`, and takes a container's answer for a failure, as it has no `Code`.
 */
import { readFile } from 'node:fs/promises';
import { IamAwsProvider } from 'minio';
import { Credentials } from 'minio/dist/esm/Credentials.mjs';
import { UserError } from '../core/errors.ts';
import { TransientStoreError } from './remote-store.ts';
import { isAmazon, type StoreOptionTexts } from './s3-location.ts';

/** Keys that stay, or a provider of keys that change. */
export type S3Access =
  | { readonly accessKey: string; readonly secretKey: string; readonly sessionToken?: string }
  | { readonly credentialsProvider: RoleCredentials };

/** A role's keys with the time they expire at; milliseconds since 1970, infinite if they do not. */
interface RoleKeys {
  readonly credentials: Credentials;
  readonly expiresAtMs: number;
}

/** Renewed this long before they expire, milliseconds: services give out the next keys five minutes ahead. */
const RENEW_AHEAD_MS = 240_000;

/** The services answer from the same machine, or not at all: milliseconds. */
const ROLE_TIMEOUT_MS = 5_000;

/** Where instances ask for their role's keys. */
const INSTANCE_SERVICE = 'http://169.254.169.254';
const CONTAINER_SERVICE = 'http://169.254.170.2';

/**
 * The first that there is: the store's `access_key` and `secret_access_key`, AWS_ACCESS_KEY_ID and the like, a web
 * identity, the container's role, the instance's role (for Amazon's endpoints, or where its service is named). Throws
 * UserError if there is none.
 */
export function findS3Access(host: string, options: StoreOptionTexts, environment: NodeJS.ProcessEnv): S3Access {
  const { access_key: accessKey, secret_access_key: secretKey } = options;
  if (accessKey && secretKey) return { accessKey, secretKey };
  if (accessKey || secretKey) throw new UserError('The store has one of access_key and secret_access_key only.');
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN } = environment;
  if (AWS_ACCESS_KEY_ID && AWS_SECRET_ACCESS_KEY) {
    const keys = { accessKey: AWS_ACCESS_KEY_ID, secretKey: AWS_SECRET_ACCESS_KEY };
    return AWS_SESSION_TOKEN ? { ...keys, sessionToken: AWS_SESSION_TOKEN } : keys;
  }
  const ask = findRole(host, environment);
  if (ask !== undefined) return { credentialsProvider: new RoleCredentials(ask) };
  throw new UserError(
    `There are no keys for ${host}. Set access_key and secret_access_key of the store in plakar's configuration, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.`,
  );
}

function findRole(host: string, environment: NodeJS.ProcessEnv): (() => Promise<RoleKeys>) | undefined {
  if (environment.AWS_WEB_IDENTITY_TOKEN_FILE) return webIdentityKeys;
  const { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: relative, AWS_CONTAINER_CREDENTIALS_FULL_URI: full } = environment;
  if (relative) return () => containerKeys(new URL(relative, CONTAINER_SERVICE), environment);
  if (full) return () => containerKeys(new URL(full), environment);
  const service = environment.AWS_EC2_METADATA_SERVICE_ENDPOINT;
  const isDisabled = environment.AWS_EC2_METADATA_DISABLED?.toLowerCase() === 'true';
  if (isDisabled || !(service || isAmazon(host))) return undefined;
  return () => instanceKeys(service || INSTANCE_SERVICE);
}

/** Asked by minio before every request; asks the role's service once at a time, and only when it must. */
export class RoleCredentials extends IamAwsProvider {
  readonly #ask: () => Promise<RoleKeys>;
  readonly #now: () => number;
  #keys: RoleKeys | undefined;
  #asking: Promise<RoleKeys> | undefined;

  constructor(ask: () => Promise<RoleKeys>, now: () => number = Date.now) {
    super({}); // For the type: minio exports no plainer class of providers, and none of this one's asking is used.
    this.#ask = ask;
    this.#now = now;
  }

  override async getCredentials(): Promise<Credentials> {
    const held = this.#keys;
    if (held !== undefined && this.#now() < held.expiresAtMs - RENEW_AHEAD_MS) return held.credentials;
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    try {
      this.#keys = await this.#asking;
      return this.#keys.credentials;
    } catch (error) {
      // Keys that are still good serve on while their service is in trouble.
      if (held !== undefined && this.#now() < held.expiresAtMs) return held.credentials;
      throw new TransientStoreError(`The role's keys cannot be had: ${(error as Error).message}`, { cause: error });
    }
  }

  /** The store says that they have expired, whatever their date. */
  forget(): void {
    this.#keys = undefined;
  }
}

async function webIdentityKeys(): Promise<RoleKeys> {
  // minio's provider keeps the date to itself; 15 minutes is the shortest that such keys can be good for.
  const credentials = await new IamAwsProvider({}).getCredentials();
  return { credentials, expiresAtMs: Date.now() + 15 * 60_000 };
}

/** ECS and EKS: one request, with a token that may change from one to the next. */
async function containerKeys(url: URL, environment: NodeJS.ProcessEnv): Promise<RoleKeys> {
  const file = environment.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE;
  const token = file ? (await readFile(file, 'utf8')).trim() : environment.AWS_CONTAINER_AUTHORIZATION_TOKEN;
  return parseRoleKeys(await ask(url, { headers: token ? { authorization: token } : {} }));
}

/** EC2, version 2: a session first, since version 1 is often switched off. */
async function instanceKeys(service: string): Promise<RoleKeys> {
  const session = await ask(new URL('/latest/api/token', service), {
    method: 'PUT',
    headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '21600' },
  });
  const headers = { 'x-aws-ec2-metadata-token': session };
  const roles = new URL('/latest/meta-data/iam/security-credentials/', service);
  const role = (await ask(roles, { headers })).split('\n')[0]!.trim();
  return parseRoleKeys(await ask(new URL(encodeURIComponent(role), roles), { headers }));
}

async function ask(url: URL, request: RequestInit): Promise<string> {
  const response = await fetch(url, { ...request, signal: AbortSignal.timeout(ROLE_TIMEOUT_MS), redirect: 'error' });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url.origin} answers ${response.status}`);
  return text;
}

function parseRoleKeys(text: string): RoleKeys {
  const { AccessKeyId, SecretAccessKey, Token, Expiration }: Record<string, unknown> = JSON.parse(text);
  if (typeof AccessKeyId !== 'string' || typeof SecretAccessKey !== 'string') {
    throw new Error('the answer holds no keys');
  }
  const token = typeof Token === 'string' ? { sessionToken: Token } : {};
  const credentials = new Credentials({ accessKey: AccessKeyId, secretKey: SecretAccessKey, ...token });
  const expiresAtMs = typeof Expiration === 'string' ? Date.parse(Expiration) : Number.POSITIVE_INFINITY;
  return { credentials, expiresAtMs: Number.isNaN(expiresAtMs) ? 0 : expiresAtMs };
}
