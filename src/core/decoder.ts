/** What stored bytes are to become. */
export interface ExpectedChunk {
  readonly mac: Uint8Array;
  readonly plainBytes: number;
  /** True as long as nobody waits for it. Default: somebody does. */
  readonly isGuess?: () => boolean;
}

/** Turns stored bytes into checked plain bytes, in this thread or in a pool: callers cannot tell. */
export interface Decoder {
  /**
   * Decrypts, decompresses and checks. Rejects with CorruptStoreError if the result is not `plainBytes` long or its MAC is not `mac`.
   * The result is the caller's own. What is a guess by then comes behind all others.
   */
  decode(stored: Uint8Array, expected: ExpectedChunk): Promise<Uint8Array>;
  /** Takes back a result of `decode`, whose memory is used again: nobody reads it any more. */
  giveBack?(plain: Uint8Array): void;
  /** Rejects with CorruptStoreError unless MAC(plain) is `mac`. */
  verify(plain: Uint8Array, mac: Uint8Array): Promise<void>;
  close(): Promise<void>;
}
