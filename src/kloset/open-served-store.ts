import { DeferredStore } from './deferred-store.ts';
import type { HttpClientOptions } from './http-client.ts';
import { HttpStore } from './http-store.ts';
import { PlakarServer, type PlakarServerOptions, redact } from './plakar-server/plakar-server.ts';
import type { RemoteStore } from './remote-store.ts';

/** A store that plakar opens, in a server of our own that starts with the first read and ends with the store. */
export function openServedStore(
  options: PlakarServerOptions,
  network: Pick<HttpClientOptions, 'connectionsMax' | 'stallTimeoutMs'>,
): RemoteStore {
  const name = `${redact(options.location)} (through plakar)`;
  return new DeferredStore(name, async () => {
    const server = await PlakarServer.start(options);
    // No name is looked up: the connection goes to the socket.
    const url = new URL('http://plakar/');
    const client = { ...network, url, name, socketPath: server.socketPath, verifyCertificate: true };
    return new HttpStore(client, () => server.close());
  });
}
