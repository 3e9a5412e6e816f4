import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { ReadAheadStore } from '../../../src/kloset/read-ahead-store.ts';
import { RetryingStore } from '../../../src/kloset/retrying-store.ts';
import { classifyLocation, openResolvedStore } from '../../../src/kloset/store-location.ts';

const environment = { AWS_EC2_METADATA_DISABLED: 'true' };

async function open(location: string, options = {}) {
  const store = openResolvedStore({ location, options }, { environment });
  await store.close();
  return store;
}

describe('classifyLocation', () => {
  it.each([
    ['/srv/a', 'directory'],
    ['a:b', 'directory'],
    ['fs:/srv/a', 'directory'],
    ['fs:///srv/a', 'directory'],
    ['/srv/a.ptar', 'archive'],
    ['fs:/srv/a.ptar', 'archive'],
    ['ptar:/srv/a', 'archive'],
    ['http://h/a.ptar', 'plakar-server'],
    ['HTTPS://h', 'plakar-server'],
    ['ptar+http://h/a', 'web-archive'],
    ['ptar+https://h/a', 'web-archive'],
    ['s3://h/b', 's3'],
    ['rclone:x', 'other'],
  ])('takes %s for a %s', (location, kind) => {
    expect(classifyLocation(location).kind).toBe(kind);
  });
});

describe('openResolvedStore', () => {
  it('makes the back-end of a location, with its help where there is a network', async () => {
    expect(await open('/srv/a')).toBeInstanceOf(RetryingStore);
    expect((await open('fs:///srv/a')).location).toBe('/srv/a');
    expect(await open('ptar:/srv/a')).toBeInstanceOf(RetryingStore);
    expect(await open('http://127.0.0.1:1/base')).toBeInstanceOf(ReadAheadStore);
    expect((await open('http://u:p@127.0.0.1:1/base')).location).toBe('http://127.0.0.1:1/base');
    expect((await open('ptar+http://127.0.0.1:1/a')).location).toBe('ptar+http://127.0.0.1:1/a');
    const keys = { access_key: 'a', secret_access_key: 'b' };
    expect((await open('s3://127.0.0.1:1/b/p/', keys)).location).toBe('s3://127.0.0.1:1/b/p');
  });

  it('says at the first read that there are no keys for an object store', async () => {
    const store = openResolvedStore({ location: 's3://127.0.0.1:1/b', options: {} }, { environment });
    await expect(store.readConfig()).rejects.toThrow(/no keys for 127\.0\.0\.1/);
    await expect(store.readConfig()).rejects.toBeInstanceOf(UserError);
    await store.close();
  });

  it.each([
    ['s3://127.0.0.1', {}],
    ['http://user:hidden@', {}],
    ['http://h', { tls_no_verify: 'maybe' }],
  ])('refuses %s %j', (location, options) => {
    const opening = () => openResolvedStore({ location, options }, { environment });
    expect(opening).toThrow(UserError);
    expect(opening).not.toThrow(/hidden/);
  });
});
