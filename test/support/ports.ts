/** Ports on loopback for server processes that tests start. */
import { type AddressInfo, createServer } from 'node:net';

/** A port that was free just now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Whether an HTTP server answers there, whatever it says. */
export async function answersHttp(url: string): Promise<boolean> {
  return fetch(url).then(
    (response) => response.status > 0,
    () => false,
  );
}
