import { CorruptStoreError } from '../core/errors.ts';

/** Messages remembered; beyond, all are forgotten and damage is named again. */
const MESSAGES_MAX = 10_000;

/** Which damage the log has named already: it stays as it is, however often somebody asks for it. */
export class NamedDamage {
  readonly #messages = new Set<string>();

  /** Whether an error is to be logged: always, but for damage of the store that was so before. */
  isNew(error: unknown): boolean {
    if (!(error instanceof CorruptStoreError)) return true;
    if (this.#messages.has(error.message)) return false;
    if (this.#messages.size >= MESSAGES_MAX) this.#messages.clear();
    this.#messages.add(error.message);
    return true;
  }
}
