import { type PiscinaTask, queueOptionsSymbol, type TaskQueue } from 'piscina';
import { firstWanted } from '../core/concurrency.ts';
import type { ChunkTask } from './message.ts';

/** A task as Piscina keeps it until a thread is free. */
type Waiting = Pick<PiscinaTask, typeof queueOptionsSymbol>;

interface Place {
  readonly task: Waiting;
  readonly isGuess: () => boolean;
}

/** What the queue needs to know travels with the task by a symbol, which no thread gets to see. */
export function queued(task: ChunkTask, isGuess: (() => boolean) | undefined): ChunkTask {
  return isGuess === undefined ? task : Object.assign(task, { [queueOptionsSymbol]: { isGuess } });
}

/**
 * Tasks that wait for a thread: what somebody waits for comes before guesses, otherwise first come, first served. Who
 * fills it bounds it: the budget of bytes in flight.
 */
export class WantedFirstQueue implements TaskQueue {
  readonly #places: Place[] = [];

  get size(): number {
    return this.#places.length;
  }

  push(task: Waiting): void {
    const options = task[queueOptionsSymbol] as { readonly isGuess: () => boolean } | null;
    this.#places.push({ task, isGuess: options?.isGuess ?? (() => false) });
  }

  shift(): Waiting | null {
    const first = firstWanted(this.#places);
    if (first === undefined) return null;
    this.remove(first.task);
    return first.task;
  }

  remove(task: Waiting): void {
    const at = this.#places.findIndex((place) => place.task === task);
    if (at !== -1) this.#places.splice(at, 1);
  }
}
