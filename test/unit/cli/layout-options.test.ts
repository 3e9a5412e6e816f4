import { describe, expect, test } from 'vitest';
import { intoOption, type LayoutArguments, layoutRequest } from '../../../src/cli/layout-options.ts';
import { UserError } from '../../../src/core/errors.ts';

const none: LayoutArguments = {
  owner: undefined,
  modeMask: undefined,
  into: undefined,
  size: undefined,
  free: undefined,
  inodes: undefined,
  uuid: undefined,
  label: undefined,
};

describe('options that shape a disk', () => {
  test('are the request that the layout takes', async () => {
    const given = { modeMask: '0750', size: '1G', inodes: '10', uuid: `${'6F'.repeat(16)}`, label: 'sixteen letters!' };
    expect(await layoutRequest({ ...none, ...given, owner: '4000000000:5' })).toEqual({
      owner: { uid: 4_000_000_000, gid: 5 },
      modeMask: 0o750,
      sizeBytes: 2 ** 30,
      free: undefined,
      spareInodes: 10,
      uuid: '6F'.repeat(16),
      label: 'sixteen letters!',
    });
    expect(await layoutRequest({ ...none, free: '7%', label: '' })).toMatchObject({ free: { percent: 7 }, label: '' });
    expect(Object.values(await layoutRequest(none)).every((value) => value === undefined)).toBe(true);
  });

  test.each([
    ['755', 0o755],
    ['0o755', 0o755],
    ['0', 0],
    ['07777', 0o7777],
  ])('--mode-mask %s', async (modeMask, bits) => {
    expect((await layoutRequest({ ...none, modeMask })).modeMask).toBe(bits);
  });

  test.each([
    { modeMask: '8' },
    { modeMask: '' },
    { modeMask: '17777' },
    { modeMask: 'u=rwx' },
    { inodes: '-1' },
    { inodes: '1.5' },
    { inodes: '4294967296' },
    { uuid: '1234' },
    { uuid: 'zz1c9a52-3e0d-4b7a-9d58-2f4f0c7e1b36' },
    { uuid: '6f1c9a523e0d-4b7a-9d58-2f4f0c7e1b36' },
    { label: 'seventeen letters' },
    { label: 'ninebytés and è' + 'e' },
    { size: 'big' },
    { free: '-1' },
  ])('%j is refused by its name', async (given) => {
    const [[option, text]] = Object.entries(given) as [[string, string]];
    const flag = `--${option.replace('M', '-m')} ${text}`;
    const refused = layoutRequest({ ...none, ...given });
    await expect(refused).rejects.toThrow(UserError);
    await expect(refused).rejects.toThrow(flag);
  });

  test('--into takes names; slashes at the ends mean nothing', () => {
    expect(['pgdata', '/pgdata/', 'a/b'].map(intoOption)).toEqual(['pgdata', 'pgdata', 'a/b']);
    expect(intoOption(undefined)).toBeUndefined();
    for (const bad of ['', '/', '..', 'a/../b', 'a//b', 'lost+found']) expect(() => intoOption(bad)).toThrow(UserError);
  });
});
