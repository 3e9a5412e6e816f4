/** Entry of the thread that derives a store's key and ends. */
import type { KeyObject } from 'node:crypto';
import { type Outcome, outcomeOf } from '../core/outcome.ts';
import { deriveKey } from '../kloset/codec/key-derivation.ts';
import type { DeriveTask } from './derive-key.ts';

export default function derive({ passphrase, parameters }: DeriveTask): Promise<Outcome<KeyObject>> {
  return outcomeOf(() => deriveKey(passphrase, parameters));
}
