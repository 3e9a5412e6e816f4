/**
 * What the server proves itself with in TLS, and what it asks of clients: read from files, and read again when told to.
 *
 *   DIR/server-cert.pem   the server's certificate, those between it and the authority behind it
 *   DIR/server-key.pem    its private key
 *   DIR/ca-cert.pem       the authorities that clients' certificates come from; needed only to verify clients
 *   DIR/ca-crl.pem        revoked clients; may be missing
 *
 * The names are nbdkit's and GnuTLS' own. Connections keep what they began with.
 */
import { constants, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext, type TlsOptions } from 'node:tls';
import { UserError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { parsePskFile } from './psk-file.ts';

export interface TlsSources {
  /** A directory. At least one of this and `pskFile` is given. */
  readonly certificates: string | undefined;
  readonly pskFile: string | undefined;
  /** Clients without a key of the PSK file must have a certificate that an authority of ca-cert.pem has signed. */
  readonly verifyPeer: boolean;
}

/** What a server asks of its clients. */
export interface TlsTerms {
  readonly credentials: TlsCredentials;
  /** Without TLS clients get nothing; else they may choose. */
  readonly required: boolean;
}

/** Bytes of a file: certificates have a few KiB. More is some other file. */
const FILE_BYTES_MAX = 1024 * 1024;
/** Permission bits of everybody but owner and group. */
const MODE_OTHERS = 0o007;

/**
 * With pre-shared keys: TLS 1.3's cipher suites of SHA-256, as these keys have no other hash there, and for TLS 1.2 those
 * that make a new key for each connection, so that a key which becomes known later decrypts nothing.
 */
const pskCiphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-AES128-GCM-SHA256',
  'ECDHE-PSK-AES128-CBC-SHA256',
];
const certificateCiphers = ['ECDHE+AESGCM', 'ECDHE+CHACHA20'];

export class TlsCredentials {
  readonly #sources: TlsSources;
  readonly #log: Log;
  #options: TlsOptions;
  #reloading: Promise<void> = Promise.resolve();

  private constructor(sources: TlsSources, log: Log, options: TlsOptions) {
    this.#sources = sources;
    this.#log = log;
    this.#options = options;
  }

  /** Rejects with UserError: a file is missing, no certificate, does not fit another, or others may read its secrets. */
  static async load(sources: TlsSources, log: Log): Promise<TlsCredentials> {
    return new TlsCredentials(sources, log, await readOptions(sources, log));
  }

  /** Whether every client shows that it has a key or a certificate. */
  get clientsProveThemselves(): boolean {
    return this.#sources.verifyPeer || this.#sources.certificates === undefined;
  }

  /** For the next handshake. */
  get options(): TlsOptions {
    return this.#options;
  }

  /** Reads the files again. If they cannot be used, all stays as it was, and the log says why. Never rejects. */
  reload(): Promise<void> {
    // One after another: what was read first must not come last.
    this.#reloading = this.#reloading.then(() => this.#readAgain());
    return this.#reloading;
  }

  async #readAgain(): Promise<void> {
    try {
      this.#options = await readOptions(this.#sources, this.#log);
      this.#log.info({}, 'Read the TLS credentials again: new connections use them.');
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.error({}, `The TLS credentials cannot be read again, and those from before stay in use: ${reason}`);
    }
  }
}

async function readOptions({ certificates, pskFile, verifyPeer }: TlsSources, log: Log): Promise<TlsOptions> {
  const keys = pskFile === undefined ? undefined : await readKeys(pskFile);
  const options: TlsOptions = {
    minVersion: 'TLSv1.2',
    // Only whoever is verified gets further; without `requestCert` nobody is asked.
    requestCert: verifyPeer,
    rejectUnauthorized: verifyPeer,
    honorCipherOrder: true,
    // Nobody who speaks NBD needs it, and each one would cost the server a signature.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
    ciphers: [...(keys === undefined ? [] : pskCiphers), ...certificateCiphers].join(':'),
    ...(certificates === undefined ? {} : await readCertificates(certificates, verifyPeer, log)),
    ...(keys === undefined ? {} : { pskCallback: (_, user) => keys.get(user) ?? null, dhparam: 'auto' }),
  };
  try {
    createSecureContext(options);
  } catch (error) {
    throw new UserError(`OpenSSL does not take the TLS credentials: ${(error as Error).message}`, { cause: error });
  }
  return options;
}

async function readKeys(path: string): Promise<Map<string, Buffer>> {
  const text = await readPem(path, 'a file of lines USER:KEY');
  if (((await stat(path)).mode & MODE_OTHERS) !== 0) {
    throw new UserError(`others may read or change the keys in ${path}: run "chmod 600 ${path}", and make new keys`);
  }
  return parsePskFile(text.toString(), path);
}

async function readCertificates(folder: string, verifyPeer: boolean, log: Log): Promise<TlsOptions> {
  const cert = await readPem(join(folder, 'server-cert.pem'), "the server's certificate");
  const keyPath = join(folder, 'server-key.pem');
  const key = await readPem(keyPath, "the server's private key, without a passphrase");
  checkPair(folder, cert, key, log);
  if (((await stat(keyPath)).mode & MODE_OTHERS) !== 0) {
    log.warn({ file: keyPath }, `Others may read or change the private key: run "chmod 600 ${keyPath}".`);
  }
  if (!verifyPeer) return { cert, key };
  const ca = await readPem(join(folder, 'ca-cert.pem'), "the authority of clients' certificates");
  const crl = await readPem(join(folder, 'ca-crl.pem'), undefined);
  return { cert, key, ca, ...(crl === undefined ? {} : { crl }) };
}

/** Whether the key is the certificate's. Throws UserError; warns of a certificate that clients will refuse. */
function checkPair(folder: string, cert: Buffer, key: Buffer, log: Log): void {
  let certificate: X509Certificate;
  let fits: boolean;
  try {
    certificate = new X509Certificate(cert);
    fits = certificate.checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    const reason = (error as Error).message;
    throw new UserError(`server-cert.pem or server-key.pem in ${folder} is not PEM without a passphrase: ${reason}`, {
      cause: error,
    });
  }
  if (!fits) throw new UserError(`server-key.pem in ${folder} is not the key of server-cert.pem: copy both again`);
  const now = Date.now();
  if (now > Date.parse(certificate.validTo) || now < Date.parse(certificate.validFrom)) {
    const { validFrom, validTo } = certificate;
    log.warn({ validFrom, validTo }, `The certificate in ${folder} is not valid today: clients will refuse it.`);
  }
}

/** A file's content. Rejects with UserError saying what should be there; without `what` a missing file is undefined. */
async function readPem(path: string, what: string): Promise<Buffer>;
async function readPem(path: string, what: undefined): Promise<Buffer | undefined>;
async function readPem(path: string, what: string | undefined): Promise<Buffer | undefined> {
  try {
    const { size } = await stat(path);
    if (size > FILE_BYTES_MAX)
      throw new UserError(`${path} has ${size} bytes: it is not ${what ?? 'a list of revoked'}`);
    return await readFile(path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    if (code === 'ENOENT' && what === undefined) return undefined;
    throw new UserError(`cannot read ${path} (${code}): it should be ${what ?? 'a list of revoked certificates'}`, {
      cause: error,
    });
  }
}
