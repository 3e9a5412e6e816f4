/** In which order tasks that wait for a decoding thread get one. */
import { queueOptionsSymbol } from 'piscina';
import { expect, it } from 'vitest';
import { queued, WantedFirstQueue } from '../../../src/workers/wanted-first-queue.ts';

/** A task as Piscina hands it to its queue. */
function task(isGuess?: () => boolean) {
  const made = queued({ target: new Uint8Array(0), mac: new Uint8Array(0) }, isGuess);
  return { [queueOptionsSymbol]: (made as { [queueOptionsSymbol]?: object })[queueOptionsSymbol] ?? null };
}

it('gives what somebody waits for first, then guesses, each in the order they came', () => {
  const queue = new WantedFirstQueue();
  let isWanted = false;
  const [guess, later, read, removed, second] = [
    task(() => true),
    task(() => !isWanted),
    task(),
    task(),
    task(() => false),
  ];
  for (const each of [guess, later, read, removed, second]) queue.push(each);
  queue.remove(removed);
  expect(queue.size).toBe(4);
  expect(queue.shift()).toBe(read);
  isWanted = true;
  expect(queue.shift()).toBe(later);
  expect(queue.shift()).toBe(second);
  expect(queue.shift()).toBe(guess);
  expect(queue.shift()).toBeNull();
});
