/** The real `plakar server`, for tests behind requires('plakar'). */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { answersHttp, freePort } from './ports.ts';
import { commandPath } from './requires.ts';

export interface RealPlakarServer {
  readonly url: string;
  /** Ends it and starts it again on the same port. */
  restart(): Promise<void>;
}

/** Directories of plakar's own that no other run of it shares. */
export function privatePlakarEnvironment(cleanup: Cleanup): NodeJS.ProcessEnv {
  const folder = temporaryFolder(cleanup);
  const { PLAKAR_PASSPHRASE: _passphrase, PLAKAR_REPOSITORY: _repository, ...inherited } = process.env;
  const own = {
    XDG_CACHE_HOME: `${folder}/cache`,
    XDG_CONFIG_HOME: `${folder}/config`,
    XDG_DATA_HOME: `${folder}/data`,
  };
  const environment = { ...inherited, HOME: folder, ...own };
  // The first run prints a welcome and every later one asks the network for news, unless told not to.
  execFileSync(commandPath('plakar'), ['-disable-security-check'], { env: environment, stdio: 'ignore' });
  return environment;
}

export async function startRealPlakarServer(cleanup: Cleanup, location: string): Promise<RealPlakarServer> {
  const environment = privatePlakarEnvironment(cleanup);
  const address = `127.0.0.1:${await freePort()}`;
  let server: ChildProcess | undefined;
  const start = async () => {
    const child = spawn(commandPath('plakar'), ['at', location, 'server', '-listen', address], {
      env: environment,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    server = child;
    for await (const line of createInterface({ input: child.stdout })) if (line.includes('listening on')) break;
    // It says so before it listens: connect until it does, or until it has ended.
    while (child.exitCode === null && !(await answersHttp(`http://${address}/resources/nothing`)));
  };
  const stop = async () => {
    if (server === undefined || server.exitCode !== null) return;
    server.kill('SIGKILL');
    await once(server, 'exit');
  };
  cleanup.add(stop);
  await start();
  return {
    url: `http://${address}`,
    restart: async () => {
      await stop();
      await start();
    },
  };
}
