/** What the relay and the process that started it tell each other: one JSON object a line. */

/** The relay's only argument. */
export interface RelayOrders {
  /** plakar's words, without `-listen ADDRESS`, which the relay adds. */
  readonly plakar: readonly string[];
  /** The Unix socket to make. */
  readonly socketPath: string;
  /** Removed with all that is in it when the relay ends. */
  readonly directory: string;
  /** `none`: bring up loopback and go; `outbound`: wait for an address; `host`: there is no namespace, find a free port. */
  readonly network: 'none' | 'outbound' | 'host';
  /** The nameserver that the namespace's network brings; its file takes the place of /etc/resolv.conf. */
  readonly nameserver?: string | undefined;
}

export type RelayEvent =
  /** The namespaces are there. */
  | { readonly event: 'hello' }
  /** plakar accepts connections. */
  | { readonly event: 'serving' }
  /** plakar ended, or never listened; it is started again after `againInMs`. */
  | { readonly event: 'ended'; readonly why: string; readonly lastWords: string; readonly againInMs: number }
  /** The relay itself cannot go on. */
  | { readonly event: 'failed'; readonly why: string };
