import type { ExportCatalog, ExportLease, ExportSummary } from '../core/export-catalog.ts';
import { attachName, BASE_SUFFIX, goneError, splitSuffix } from '../exports/export-name.ts';
import { deviceIdOf } from './clone-devices.ts';
import type { CloneRecord } from './clone-record.ts';
import type { LocalClones } from './local-clones.ts';

/** The clones of a directory as exports, in front of all others; looked up whenever a client asks, so that new ones are there at once. */
export class CloneExports implements ExportCatalog {
  readonly #clones: LocalClones;
  readonly #others: ExportCatalog;

  constructor(clones: LocalClones, others: ExportCatalog) {
    this.#clones = clones;
    this.#others = others;
  }

  async list(): Promise<readonly ExportSummary[]> {
    const records = (await this.#clones.list()).clones.map(({ record }) => record);
    return [
      ...(await this.#others.list()),
      ...records.map((record) => ({ name: record.name, description: describeClone(record) })),
      ...records.map((record) => ({ name: `${record.name}${BASE_SUFFIX}`, description: describeClone(record) })),
    ];
  }

  async acquire(name: string): Promise<ExportLease | undefined> {
    const { name: own, isBase, token } = splitSuffix(name);
    const found = await this.#clones.attach(own);
    if (found === undefined) return this.#others.acquire(name);
    const { record, hold } = found;
    const device = await hold.device;
    if (token !== undefined && token !== device.token) {
      hold.release();
      throw goneError(name, own, { isVolatile: false });
    }
    const description = describeClone(record);
    return {
      name,
      deviceId: isBase ? `${deviceIdOf(record)}${BASE_SUFFIX}` : deviceIdOf(record),
      description: isBase ? description : `${description}, attach as ${attachName(own, device.token)}`,
      readOnly: isBase || device.isReadOnly,
      device: isBase ? device.pristine : device.writable,
      release: hold.release,
    };
  }
}

/** One line for NBD_OPT_LIST. */
function describeClone({ parts, createdMs, expiresMs, isProtected }: CloneRecord): string {
  const [part, ...others] = parts;
  return [
    `clone of ${part!.snapshot.slice(0, 8)}${part!.path === '/' ? '' : `:${part!.path}`}`,
    ...(others.length === 0 ? [] : [`and ${others.length} more`]),
    `since ${new Date(createdMs).toISOString()}`,
    ...(isProtected ? ['protected'] : []),
    ...(expiresMs === null ? [] : [`until ${new Date(expiresMs).toISOString()}`]),
  ].join(' ');
}
