import { UserError } from '../core/errors.ts';
import type { ExportAddress } from './disk.ts';

/** NBD's own port. Source: IANA. */
const PORT_DEFAULT = 10809;

/**
 * `nbd://HOST:PORT/NAME`, `nbd+unix:///NAME?socket=PATH`, or NAME alone for the server on this machine's usual port. Source:
 * the NBD URI specification. Throws UserError.
 */
export function parseExportAddress(text: string): ExportAddress {
  if (!/^[a-z+]+:/i.test(text) || /^tag:/.test(text)) {
    return {
      uri: `nbd://127.0.0.1/${encodeURIComponent(text)}`,
      name: text,
      at: { host: '127.0.0.1', port: PORT_DEFAULT },
    };
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const name = url === undefined ? '' : decodeURIComponent(url.pathname.replace(/^\//, ''));
  const socket = url?.searchParams.get('socket');
  if (url?.protocol === 'nbd+unix:' && socket) return { uri: text, name, at: { path: socket } };
  if (url?.protocol === 'nbd:' && url.hostname !== '') {
    const host = url.hostname.replace(/^\[|\]$/g, '');
    return { uri: text, name, at: { host, port: url.port === '' ? PORT_DEFAULT : Number(url.port) } };
  }
  throw new UserError(`${text}: write nbd://HOST:PORT/NAME, nbd+unix:///NAME?socket=PATH, or the export's name alone.`);
}
