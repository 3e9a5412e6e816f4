/**
 * `npm start`: serves the fixture with a PostgreSQL cluster in it, and says what to type next. Arguments are passed on:
 * `npm start -- --listen unix:/tmp/nbd.sock --overlay ./work`.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = new URL('../..', import.meta.url);
/** Signals closer to each other than this come from one Ctrl-C: the terminal and npm both deliver it. */
const SAME_KEY_MS = 500;

/** What to type next, for the first address of the server. */
export function renderNextSteps(uri: string): string {
  const { hostname, port, searchParams } = new URL(uri);
  const attach =
    hostname === ''
      ? `nbd-client -unix '${searchParams.get('socket')}' /dev/nbd0`
      : `nbd-client ${hostname} ${port} /dev/nbd0`;
  return `
This disk is the newest of two backups of a PostgreSQL 15 cluster. It can be written to; what you
write is gone when this server ends, and the backup stays as it is. In another terminal, as root:

  With the kernel's NBD client (Debian: nbd-client):
    modprobe nbd
    ${attach}
    mount /dev/nbd0 /mnt
  or without that module, through FUSE and a loop device (Debian: libnbd-bin):
    mkdir -p /tmp/kloset-nbd
    nbdfuse /tmp/kloset-nbd '${uri}' &
    mount -o loop /tmp/kloset-nbd/nbd /mnt

  Then PostgreSQL (Debian: postgresql-15):
    chown -R postgres: /mnt
    su postgres -c "/usr/lib/postgresql/15/bin/pg_ctl -D /mnt -o '-k /tmp -p 5433' -l /tmp/kloset-nbd.log -w start"
    psql -h /tmp -p 5433 -U postgres -c 'select count(*) from photo'      # 3920

  And back:
    su postgres -c "/usr/lib/postgresql/15/bin/pg_ctl -D /mnt stop"
    umount /mnt; nbd-client -d /dev/nbd0      # or: umount /tmp/kloset-nbd

Ctrl-C ends the server.
`;
}

function main(): void {
  const cli = fileURLToPath(new URL('dist/cli/main.js', root));
  const store = fileURLToPath(new URL('fixtures/stores/album', root));
  const args = ['serve', '--store', store, ...process.argv.slice(2)];
  // In a session of its own, so that Ctrl-C does not reach it twice: it would take the second for "at once".
  const server = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  let isReady = false;
  createInterface({ input: server.stdout }).on('line', (line) => {
    console.log(line);
    const uri = /^ready (nbd\S+)$/.exec(line)?.[1];
    if (uri === undefined || isReady) return;
    isReady = true;
    console.log(renderNextSteps(uri));
  });
  let lastSignalMs = Number.NEGATIVE_INFINITY;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const isRepeat = performance.now() - lastSignalMs < SAME_KEY_MS;
      lastSignalMs = performance.now();
      // The terminal is gone with SIGHUP, and the server knows no such signal.
      if (!isRepeat) server.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal);
    });
  }
  server.on('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
