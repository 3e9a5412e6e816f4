/** What is wrong with a server that still serves, for people and for probes. */
export interface HealthReport {
  readonly status: 'ok' | 'degraded';
  /** One line each. */
  readonly reasons: readonly string[];
}

/** Reasons by what they are about: each subject has one at a time, and can be well again. */
export class Health {
  readonly #reasons = new Map<string, string>();

  /** True if that is news. */
  degrade(subject: string, reason: string): boolean {
    const isNews = this.#reasons.get(subject) !== reason;
    this.#reasons.set(subject, reason);
    return isNews;
  }

  /** True if it was not well before. */
  recover(subject: string): boolean {
    return this.#reasons.delete(subject);
  }

  report(): HealthReport {
    return { status: this.#reasons.size === 0 ? 'ok' : 'degraded', reasons: [...this.#reasons.values()] };
  }
}
