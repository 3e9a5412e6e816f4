/** What a validated request asks of the device. Knows no connection. */
import type { ExportDevice } from '../core/export-device.ts';
import type { StopOptions } from '../core/stop.ts';
import type { SelectedContext, Session } from './handshake.ts';
import { statusRuns } from './meta-context.ts';
import { commandFlags, commands } from './protocol.ts';
import { encodeStatus } from './reply.ts';
import {
  decodeStatusPayload,
  type RequestHeader,
  type RequestRefusal,
  type RequestRules,
  statusPayloadRefusal,
  validateRange,
} from './request.ts';

/**
 * Carries out any command but BLOCK_STATUS; settles when it is done. `data` is a WRITE's payload, or what a READ fills.
 * READ and CACHE can be stopped. Rejects or throws as the device does.
 */
export function perform(
  device: ExportDevice,
  request: RequestHeader,
  data: Buffer,
  options: StopOptions,
): Promise<void> {
  const { offset, length, flags } = request;
  const fua = (flags & commandFlags.NBD_CMD_FLAG_FUA) !== 0;
  switch (request.type) {
    case commands.NBD_CMD_READ:
      return device.read(offset, data, options);
    case commands.NBD_CMD_WRITE:
      return device.write(offset, data, { fua });
    case commands.NBD_CMD_FLUSH:
      return device.flush();
    case commands.NBD_CMD_TRIM:
      return device.trim({ offset, length }, { fua });
    case commands.NBD_CMD_WRITE_ZEROES: {
      // FAST_ZERO asks nothing more of a device that has it: it was advertised because zeroing is always fast there.
      const mayTrim = (flags & commandFlags.NBD_CMD_FLAG_NO_HOLE) === 0;
      return device.writeZeroes({ offset, length }, { fua, mayTrim });
    }
    case commands.NBD_CMD_CACHE:
      return device.cache!({ offset, length }, options);
    default:
      throw new TypeError(`validate let command ${request.type} through`);
  }
}

/**
 * Extents looked up for a reply of one: a few, since contexts join some of them, and no more, since clients that walk a
 * disk this way (qemu-img map) ask again for every extent.
 */
const REQ_ONE_EXTENTS = 16;

/** What answering BLOCK_STATUS takes, the same for a whole session. */
export interface StatusSession {
  readonly session: Session;
  readonly rules: RequestRules;
  readonly extentsMax: number;
}

/** The reply to BLOCK_STATUS, or why there is none. A payload moves the range's length from there into `request`. */
export async function blockStatus(
  device: ExportDevice,
  request: RequestHeader,
  payload: Buffer,
  { session, rules, extentsMax }: StatusSession,
): Promise<Buffer | RequestRefusal> {
  const asked = payload.length === 0 ? session.contexts : askedContexts(session.contexts, request, payload);
  if (asked === undefined) return statusPayloadRefusal;
  if (payload.length > 0) {
    const refusal = validateRange(request, rules);
    if (refusal !== undefined) return refusal;
  }
  const { offset, length } = request;
  const one = (request.flags & commandFlags.NBD_CMD_FLAG_REQ_ONE) !== 0;
  const extents = await device.status!({ offset, length }, { extentsMax: one ? REQ_ONE_EXTENTS : extentsMax });
  const compact = session.style !== 'extended';
  const statuses = asked.map(({ id, context }) => ({
    id,
    runs: statusRuns(context, extents, { length, one, compact }),
  }));
  return encodeStatus(session.style, request, statuses);
}

/** The contexts that a payload names; undefined if it names one that was not selected, or one twice. */
function askedContexts(
  selected: readonly SelectedContext[],
  request: RequestHeader,
  payload: Buffer,
): readonly SelectedContext[] | undefined {
  const asked = decodeStatusPayload(payload);
  if (asked === undefined) return undefined;
  const contexts = selected.filter(({ id }) => asked.ids.includes(id));
  if (contexts.length < asked.ids.length) return undefined;
  request.length = asked.length;
  return contexts;
}
