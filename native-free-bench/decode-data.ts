/** Generated file contents: the same for a seed on every machine. */

const PAGE_BYTES = 8192;
const PAGE_HEADER_BYTES = 24;
const TUPLE_BYTES = 128;
const TUPLES_A_PAGE = 61;

/**
 * Pages of pgbench_accounts as PostgreSQL writes them after `pgbench -i`: 61 tuples of 128 bytes with a growing key and
 * 84 blanks. LZ4 makes a sixteenth of them, as of the real ones.
 */
export function pgbenchBytes(seed: number, length: number): Uint8Array {
  const pages = Math.ceil(length / PAGE_BYTES);
  const bytes = new Uint8Array(pages * PAGE_BYTES);
  const view = new DataView(bytes.buffer);
  for (let page = 0; page < pages; page++) {
    const start = page * PAGE_BYTES;
    const upper = PAGE_BYTES - TUPLES_A_PAGE * TUPLE_BYTES;
    view.setUint32(start + 4, seed * 0x1000 + page * 8000, true); // pd_lsn: grows from page to page.
    view.setUint16(start + 12, PAGE_HEADER_BYTES + 4 * TUPLES_A_PAGE, true); // pd_lower
    view.setUint16(start + 14, upper, true); // pd_upper
    view.setUint16(start + 16, PAGE_BYTES, true); // pd_special
    view.setUint16(start + 18, PAGE_BYTES | 4, true); // pd_pagesize_version
    for (let tuple = 0; tuple < TUPLES_A_PAGE; tuple++) {
      const offset = PAGE_BYTES - (tuple + 1) * TUPLE_BYTES;
      // ItemId: offset in 15 bits, flags "normal" in 2, length 121 in 15.
      view.setUint32(start + PAGE_HEADER_BYTES + 4 * tuple, offset | (1 << 15) | (121 << 17), true);
      writeTuple(view, start + offset, { seed, page, tuple });
    }
  }
  return bytes.subarray(0, length);
}

function writeTuple(view: DataView, at: number, { seed, page, tuple }: { seed: number; page: number; tuple: number }) {
  view.setUint32(at, 700 + seed, true); // t_xmin
  view.setUint16(at + 14, page & 0xffff, true); // t_ctid
  view.setUint16(at + 16, tuple + 1, true);
  view.setUint16(at + 18, 4, true); // t_infomask2: four attributes
  view.setUint16(at + 20, 0x0902, true); // t_infomask
  view.setUint8(at + 22, 24); // t_hoff
  view.setUint32(at + 24, page * TUPLES_A_PAGE + tuple + 1, true); // aid
  view.setUint32(at + 28, 1, true); // bid
  view.setUint8(at + 36, 0xab); // filler: a short varlena of 84 characters
  for (let blank = 0; blank < 84; blank++) view.setUint8(at + 37 + blank, 0x20);
}
