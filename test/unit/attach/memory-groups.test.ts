import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { groupDirectory, removeMemoryGroups } from '../../../src/attach/memory-groups.ts';
import { cleanupAfterEach, temporaryFolder } from '../../support/fixtures.ts';

const cleanup = cleanupAfterEach();
const mounts = (root: string) =>
  [
    '24 1 8:1 / / rw - ext4 /dev/sda1 rw',
    `30 24 0:26 ${root} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`,
    `31 24 0:27 ${root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`,
  ].join('\n');

test.each([
  ['4:memory:/user/a', '/', '/sys/fs/cgroup/memory/user/a'],
  ['9:cpu:/x\n4:hugetlb,memory,rdma:/user/a:b', '/', '/sys/fs/cgroup/memory/user/a:b'],
  // In a container the mount begins at the container's own group.
  ['4:memory:/docker/1/a', '/docker/1', '/sys/fs/cgroup/memory/a'],
  ['4:memory:/docker/1', '/docker/1', '/sys/fs/cgroup/memory'],
])('the group of %j, whose mount begins at %s, is %s', (cgroup, root, expected) => {
  expect(groupDirectory(cgroup, mounts(root))).toBe(expected);
});

test('version 2, another controller, or no mount: there is none', () => {
  expect(groupDirectory('0::/user.slice', '31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw')).toBeUndefined();
  expect(groupDirectory('4:memory_recursiveprot:/a', mounts('/'))).toBeUndefined();
  expect(groupDirectory('4:memory:/a', '')).toBeUndefined();
});

test('removes what is there and is as content with nothing', async () => {
  const groups = join(temporaryFolder(cleanup), 'groups');
  for (const name of ['server', 'database']) mkdirSync(join(groups, name), { recursive: true });
  await removeMemoryGroups(groups);
  expect(existsSync(groups)).toBe(false);
  await removeMemoryGroups(groups);
});

test('leaves what is not a group alone', async () => {
  const groups = temporaryFolder(cleanup);
  writeFileSync(join(groups, 'file'), '');
  await removeMemoryGroups(groups);
  expect(existsSync(join(groups, 'file'))).toBe(true);
});
