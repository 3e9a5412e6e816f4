import type { DeviceExtent, ExportDevice } from '../core/export-device.ts';

/** A disk that is read out as a whole, and knows where it is empty and where it was written to. */
export type ImageSource = Pick<ExportDevice, 'sizeBytes' | 'read'> & Required<Pick<ExportDevice, 'status'>>;

/** Extents asked for at a time. */
const EXTENTS_MAX = 4096;

/** All extents from the disk's beginning to its end, without gaps. */
export async function* extentsOf(source: ImageSource): AsyncGenerator<DeviceExtent> {
  for (let offset = 0; offset < source.sizeBytes; ) {
    const range = { offset, length: source.sizeBytes - offset };
    for (const extent of await source.status(range, { extentsMax: EXTENTS_MAX })) {
      const length = Math.min(extent.length, source.sizeBytes - offset); // The last may reach beyond the range.
      yield { ...extent, length };
      offset += length;
    }
  }
}
