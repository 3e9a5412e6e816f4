import { expect, test } from 'vitest';
import { renderNextSteps } from '../../src/tools/start.ts';

test('what to type next names the address that is served', () => {
  const text = renderNextSteps('nbd://127.0.0.1:10809/');
  expect(text).toContain('nbd-client 127.0.0.1 10809 /dev/nbd0\n');
  expect(text).toContain("nbdfuse /tmp/kloset-nbd 'nbd://127.0.0.1:10809/' &");
});

test('what to type next names the socket that is served', () => {
  const text = renderNextSteps('nbd+unix:///?socket=/run/a%20b.sock');
  expect(text).toContain("nbd-client -unix '/run/a b.sock' /dev/nbd0\n");
  expect(text).toContain("nbdfuse /tmp/kloset-nbd 'nbd+unix:///?socket=/run/a%20b.sock' &");
});
