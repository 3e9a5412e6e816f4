/** The options for where and to whom a server listens. */
import type { Argv } from 'yargs';

export interface ListenArguments {
  readonly listen: readonly string[];
  readonly fd: string | undefined;
  readonly tls: 'off' | 'on' | 'require' | undefined;
  readonly tlsCertificates: string | undefined;
  readonly tlsVerifyPeer: boolean;
  readonly tlsPsk: string | undefined;
  readonly allow: readonly string[];
  readonly insecure: boolean;
  readonly shared: boolean;
  readonly minimumBlockSize: '1' | '512' | '4096';
  readonly idleTimeout: string;
  readonly supervise: boolean;
  readonly metrics: string | undefined;
}

/** Adds the options to a command. */
export function listenOptions<T>(yargs: Argv<T>) {
  const where = yargs
    .option('listen', {
      describe: 'Where to listen: tcp://HOST:PORT (port 0: any free one) or unix:PATH; repeatable',
      type: 'string',
      array: true,
      nargs: 1,
      default: ['tcp://127.0.0.1:10809'],
    })
    .option('fd', {
      describe: 'Serve the one connection on this descriptor instead, and end with it',
      type: 'string',
      requiresArg: true,
    })
    .option('allow', {
      describe: 'Let in only clients from this address or network (10.0.0.0/8) over TCP; repeatable',
      type: 'string',
      array: true,
      nargs: 1,
      default: [],
      defaultDescription: 'everybody',
    })
    .option('insecure', {
      describe: 'Listen beyond this machine without --tls require: whoever gets there has the disks',
      type: 'boolean',
      default: false,
    });
  const told = where.option('metrics', {
    describe:
      'Where to answer http requests for /metrics (Prometheus) and /healthz: HOST:PORT, port 0 for any free one',
    type: 'string',
    requiresArg: true,
  });
  return tlsOptions(told)
    .option('shared', {
      describe:
        'Let several clients write to one export at once. ext4 does not survive that: for cluster-aware clients only',
      type: 'boolean',
      default: false,
    })
    .option('minimum-block-size', {
      describe: 'Bytes that offsets and lengths of requests must be multiples of; clients are told, others refused',
      choices: ['1', '512', '4096'] as const,
      default: '1' as const,
    })
    .option('idle-timeout', {
      describe: 'How long a client may ask nothing before it is disconnected, such as 1h; 0 for ever',
      type: 'string',
      requiresArg: true,
      default: '0',
    })
    .option('supervise', {
      describe: 'Keep clients when the serving process dies: it is started again, and goes on. With --overlay DIR only',
      type: 'boolean',
      default: false,
    });
}

function tlsOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('tls', {
      describe: 'Offer TLS (on), or serve nobody without (require)',
      choices: ['off', 'on', 'require'] as const,
      defaultDescription: 'on with --tls-certificates or --tls-psk, else off',
    })
    .option('tls-certificates', {
      describe: 'Directory with server-cert.pem and server-key.pem; with --tls-verify-peer also ca-cert.pem',
      type: 'string',
      requiresArg: true,
    })
    .option('tls-verify-peer', {
      describe: 'Ask clients for a certificate of an authority in ca-cert.pem; those with a key of --tls-psk need none',
      type: 'boolean',
      default: false,
    })
    .option('tls-psk', {
      describe: 'File of lines USER:KEY, as psktool writes them: whoever has one of these keys may connect',
      type: 'string',
      requiresArg: true,
    });
}
