/**
 * Metadata contexts: what NBD_CMD_BLOCK_STATUS can tell (spec, "Metadata querying").
 *
 *   base:allocation   bit 0 NBD_STATE_HOLE: nothing is allocated; bit 1 NBD_STATE_ZERO: reads as zeroes.
 *   kloset:overlay    bit 0: dirty, written since the snapshot.
 *
 * Queries: `namespace:` lists all of a namespace and selects nothing; `namespace:leaf` lists and selects that one.
 */
import type { DeviceExtent, ExportDevice } from '../core/export-device.ts';

export interface MetaContext {
  readonly name: string;
  /** The status flags of an extent: 32 bits. */
  flagsOf(extent: DeviceExtent): number;
}

const STATE_HOLE = 1 << 0;
const STATE_ZERO = 1 << 1;
const STATE_DIRTY = 1 << 0;

export const metaContexts: readonly MetaContext[] = [
  {
    name: 'base:allocation',
    flagsOf: ({ hole, zero }) => (hole ? STATE_HOLE : 0) | (zero ? STATE_ZERO : 0),
  },
  { name: 'kloset:overlay', flagsOf: ({ dirty }) => (dirty ? STATE_DIRTY : 0) },
];

/** The contexts a device can answer for. */
export function contextsOf(device: ExportDevice): readonly MetaContext[] {
  return device.status === undefined ? [] : metaContexts;
}

/** What NBD_OPT_LIST_META_CONTEXT answers: all without a query, else those that match one. */
export function listContexts(available: readonly MetaContext[], queries: readonly string[]): readonly MetaContext[] {
  if (queries.length === 0) return available;
  return available.filter(
    ({ name }) => queries.includes(name) || queries.includes(name.slice(0, name.indexOf(':') + 1)),
  );
}

/** What NBD_OPT_SET_META_CONTEXT selects: those named in full, each once. */
export function selectContexts(available: readonly MetaContext[], queries: readonly string[]): readonly MetaContext[] {
  return available.filter(({ name }) => queries.includes(name));
}

/** One status descriptor. */
export interface StatusRun {
  length: number;
  readonly flags: number;
}

/** Largest length of a descriptor in a compact reply: 32 bits, a multiple of the block. */
const COMPACT_RUN_BYTES_MAX = 2 ** 32 - 4096;

/**
 * The extents as one context sees them: neighbours with equal flags become one, and the rules on lengths are kept
 * (spec, NBD_REPLY_TYPE_BLOCK_STATUS): with `one`, a single run within the request; else only the last may reach
 * beyond the request. Compact replies have 32-bit lengths: a longer run ends the reply early.
 */
export function statusRuns(
  context: MetaContext,
  extents: readonly DeviceExtent[],
  request: { readonly length: number; readonly one: boolean; readonly compact: boolean },
): readonly StatusRun[] {
  const runs: StatusRun[] = [];
  let covered = 0;
  let last: StatusRun | undefined;
  for (const extent of extents) {
    const flags = context.flagsOf(extent);
    if (last?.flags === flags) {
      last.length += extent.length;
    } else {
      if (covered >= request.length || (request.one && last !== undefined)) break;
      last = { length: extent.length, flags };
      runs.push(last);
    }
    covered += extent.length;
  }
  if (request.one) runs[0]!.length = Math.min(runs[0]!.length, request.length);
  const tooLong = request.compact ? runs.findIndex((run) => run.length > COMPACT_RUN_BYTES_MAX) : -1;
  if (tooLong === -1) return runs;
  runs[tooLong]!.length = COMPACT_RUN_BYTES_MAX;
  return runs.slice(0, tooLong + 1);
}
