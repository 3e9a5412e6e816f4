/** The end of what a killed process left behind. */
import { join } from 'node:path';
import { finish } from './program.ts';
import { removeSession, type SessionRecord } from './sessions.ts';

/**
 * Takes down what is left of a session whose process is gone: mounts, loop and nbd devices, its directory. What was not
 * written back is lost with the process already, so nothing is waited for.
 */
export async function takeDown(directory: string, record: SessionRecord | undefined): Promise<void> {
  if (record?.container !== undefined) await finish(['docker', 'rm', '--force', record.container]);
  const disk = join(directory, 'disk');
  const mountPoints = [record?.mountPoint, join(directory, 'mnt'), disk].filter((path) => path !== undefined);
  for (const mountPoint of mountPoints) {
    // Lazily: programs that still have files open there shall not keep the rest.
    const isMounted = async () => (await finish(['findmnt', '-n', '--mountpoint', mountPoint])).status === 0;
    if (await isMounted()) await finish(['umount', '--lazy', mountPoint]);
    if (await isMounted()) await finish(['fusermount3', '-uz', mountPoint]);
  }
  if (record?.method === 'nbd' && record.device !== undefined) await finish(['nbd-client', '-d', record.device]);
  await removeSession(directory);
}
