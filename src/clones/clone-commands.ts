/** Clones over the control socket: the server's side. remote-clones.ts is the other. */
import type { ControlArguments } from '../control/control-protocol.ts';
import type { ControlCommand, ControlSession } from '../control/control-server.ts';
import { UserError } from '../core/errors.ts';
import type { DeviceExtent } from '../core/export-device.ts';
import type { CloneChange, CloneService, CloneView } from './clone-service.ts';

/** Bytes of one read of a view. */
export const VIEW_READ_BYTES_MAX = 4 * 1024 * 1024;
/** Extents of a view in one answer. */
export const VIEW_EXTENTS_MAX = 10_000;

/** An extent in few characters: length, and 1 for data, 2 for what was written since the snapshot, added up. */
export type PackedExtent = readonly [length: number, flags: number];
const DATA = 1;
const DIRTY = 2;

export function packExtent({ length, zero, dirty }: DeviceExtent): PackedExtent {
  return [length, (zero ? 0 : DATA) + (dirty ? DIRTY : 0)];
}

export function unpackExtent([length, flags]: PackedExtent): DeviceExtent {
  const zero = flags % 2 === 0;
  return { length, zero, hole: zero, dirty: flags >= DIRTY };
}

export function cloneCommands(clones: CloneService): Readonly<Record<string, ControlCommand>> {
  const views = new Views();
  return {
    'clone.list': () => clones.list(),
    'clone.info': (given) => clones.info(text(given, 'name')),
    'clone.diff': (given) => clones.diff(text(given, 'name')),
    'clone.check': (given) => clones.check(text(given, 'name')),
    'clone.copy': (given) => clones.copy(text(given, 'name'), text(given, 'newName')),
    'clone.change': (given) => clones.change(text(given, 'name'), given.change as CloneChange),
    'clone.reset': (given) => clones.reset(text(given, 'name'), { force: given.force === true }),
    'clone.remove': (given) => clones.remove(text(given, 'name'), { force: given.force === true }),
    'clone.view': async (given, session) => views.open(await clones.view(text(given, 'name')), session),
    'view.read': (given, session) => {
      const length = integer(given, 'length', VIEW_READ_BYTES_MAX);
      return views.read(session, integer(given, 'view'), { offset: integer(given, 'offset'), length });
    },
    'view.extents': (given, session) => views.extents(session, integer(given, 'view'), integer(given, 'offset')),
  };
}

/** The views that connections hold. */
class Views {
  readonly #bySession = new WeakMap<ControlSession, Map<number, CloneView>>();
  #lastId = 0;

  open(view: CloneView, session: ControlSession) {
    const id = ++this.#lastId;
    const ofSession = this.#bySession.get(session) ?? new Map<number, CloneView>();
    this.#bySession.set(session, ofSession);
    ofSession.set(id, view);
    session.onEnd(() => view.close());
    const { record, connections, sizeBytes } = view;
    return { view: id, record, connections, sizeBytes };
  }

  async read(session: ControlSession, id: number, range: { offset: number; length: number }): Promise<Uint8Array> {
    const view = this.#find(session, id);
    requireInside(view, range.offset + range.length);
    const target = new Uint8Array(range.length);
    await view.read(range.offset, target);
    return target;
  }

  async extents(session: ControlSession, id: number, offset: number): Promise<readonly PackedExtent[]> {
    const view = this.#find(session, id);
    requireInside(view, offset + 1);
    const range = { offset, length: view.sizeBytes - offset };
    return (await view.status(range, { extentsMax: VIEW_EXTENTS_MAX })).map(packExtent);
  }

  #find(session: ControlSession, id: number): CloneView {
    const view = this.#bySession.get(session)?.get(id);
    if (view === undefined) throw new UserError(`This connection holds no view ${id}.`);
    return view;
  }
}

function requireInside({ sizeBytes }: CloneView, end: number): void {
  if (end > sizeBytes) throw new UserError(`The view ends at byte ${sizeBytes}.`);
}

function text(given: ControlArguments, name: string): string {
  const value = given[name];
  if (typeof value !== 'string') throw new UserError(`The argument "${name}" is missing.`);
  return value;
}

function integer(given: ControlArguments, name: string, most = Number.MAX_SAFE_INTEGER): number {
  const value = given[name];
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= most) return value;
  throw new UserError(`The argument "${name}" is not an integer from 0 to ${most}.`);
}
