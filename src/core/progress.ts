/** Tells people how far something long is. */
export interface Progress {
  /**
   * Begins a stage: one at a time, the one before it has ended. `what` says what is done, in the plural of what is counted ("states
   * read"); `total` is how many there will be, if that is known.
   */
  begin(what: string, total?: number): ProgressStage;
}

export interface ProgressStage {
  /** That many more are done. Costs next to nothing: call it for each. */
  advance(count?: number): void;
  /** It turned out how many there are. */
  setTotal(total: number): void;
  end(): void;
}

/** For whoever has nobody to tell. */
export const silentProgress: Progress = {
  begin: () => ({ advance() {}, setTotal() {}, end() {} }),
};
