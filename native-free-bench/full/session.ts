/** PostgreSQL on a disk, the same way for every server of NBD: nbdfuse, a loop device, ext4, postgres. */
import type { Cleanup } from '../../test/support/fixtures.ts';
import { attachDevice, mountDevice } from '../../test/support/mount.ts';
import { type RunningPostgres, startPostgres } from '../../test/support/postgres.ts';

/**
 * The same for every contestant, whatever the backup has: writes are synced, and nothing of the server's own accord
 * disturbs the figures. With syncfs a start after a crash does not open every file.
 */
export const postgresParameters = [
  'fsync=on',
  'shared_buffers=128MB',
  'max_wal_size=1GB',
  'autovacuum=off',
  'recovery_init_sync_method=syncfs',
];

export interface DiskSession {
  readonly postgres: RunningPostgres;
  /** Shuts down in order, unmounts, detaches. */
  stop(): Promise<void>;
}

export async function startOnDisk(cleanup: Cleanup, uri: string): Promise<DiskSession> {
  const device = await attachDevice(cleanup, uri);
  const mounted = await mountDevice(cleanup, device.path, { options: 'noatime' });
  const postgres = await startOnFolder(cleanup, mounted.folder);
  return {
    postgres,
    async stop() {
      await postgres.stop();
      await mounted.unmount();
      await device.detach();
    },
  };
}

export function startOnFolder(cleanup: Cleanup, folder: string): Promise<RunningPostgres> {
  return startPostgres(cleanup, folder, { parameters: postgresParameters });
}
