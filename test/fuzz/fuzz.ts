/**
 * Seeded fuzzing of whatever parses bytes that a store, a file or a peer hands us. A parser may give a value or throw an
 * error of our own that is no AssertionError; anything else (a TypeError, a RangeError from an allocation, a hang, memory
 * that grows with the claims of the input) is a finding.
 */
import { AssertionError, KlosetNbdError } from '../../src/core/errors.ts';
import { MiB } from '../../src/core/units.ts';
import { seededRandom } from '../support/overlay-random.ts';
import { mutate } from './mutate.ts';

/** One parser, and well-formed inputs to start from. */
export interface FuzzTarget {
  readonly name: string;
  /** At least one. */
  readonly samples: readonly Uint8Array[];
  /** Parses `input`, which is its own to keep. */
  run(input: Uint8Array): unknown;
}

/** A case that did what no input may make a parser do. */
export interface Finding {
  readonly target: string;
  readonly input: Uint8Array;
  readonly problem: string;
}

export interface FuzzReport {
  readonly cases: number;
  /** Cases that the parser took as good; with none a target tests only its first check. */
  readonly accepted: ReadonlyMap<string, number>;
  readonly findings: readonly Finding[];
}

/** Milliseconds of processor time that no case may take: each input is small. */
const CASE_CPU_MS_MAX = 5_000;
/** Bytes of buffers that one case may leave behind or be seen with: samples have kilobytes, decoders may give a megabyte. */
const CASE_BUFFER_BYTES_MAX = 64 * MiB;
/** Findings after which a run ends: the rest would be the same ones again. */
const FINDINGS_MAX = 10;

/** Runs cases over all targets in turn until `more` says no. The same seed gives the same cases. */
export async function fuzz(
  targets: readonly FuzzTarget[],
  { seed, more }: { readonly seed: number; readonly more: (casesDone: number) => boolean },
): Promise<FuzzReport> {
  const random = seededRandom(seed);
  const accepted = new Map(targets.map(({ name }) => [name, 0]));
  const findings: Finding[] = [];
  let cases = 0;
  for (; findings.length < FINDINGS_MAX && more(cases); cases++) {
    const target = targets[cases % targets.length]!;
    const input = mutate(target.samples, random);
    const outcome = await runCase(target, input);
    if (outcome === 'accepted') accepted.set(target.name, accepted.get(target.name)! + 1);
    else if (outcome !== 'refused') findings.push({ target: target.name, input, problem: outcome });
  }
  return { cases, accepted, findings };
}

/** What one input made of a parser: `accepted`, `refused`, or what is wrong with it. */
export async function runCase(target: FuzzTarget, input: Uint8Array): Promise<string> {
  const before = process.cpuUsage();
  const { arrayBuffers } = process.memoryUsage();
  let outcome = 'accepted';
  try {
    await target.run(new Uint8Array(input));
  } catch (error) {
    const refused = error instanceof KlosetNbdError && !(error instanceof AssertionError);
    outcome = refused ? 'refused' : ((error as Error).stack ?? String(error));
  }
  const { user, system } = process.cpuUsage(before);
  const cpuMs = (user + system) / 1000;
  const grownBytes = process.memoryUsage().arrayBuffers - arrayBuffers;
  if (grownBytes > CASE_BUFFER_BYTES_MAX) return `took ${grownBytes} bytes of buffers`;
  return cpuMs > CASE_CPU_MS_MAX ? `took ${Math.round(cpuMs)} ms of processor time` : outcome;
}
