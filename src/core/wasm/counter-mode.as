// What AES-GCM-SIV's counter mode takes besides the cipher itself (RFC 8452, 4).

/** Repeats the block at `first` to `blocks` blocks, whose first words count on from `counter`, modulo 2^32. */
export function countBlocks(first: usize, blocks: usize, counter: u32): void {
  const block = v128.load(first);
  for (let index: usize = 0; index < blocks; index++) {
    v128.store(first + 16 * index, i32x4.replace_lane(block, 0, counter + <u32>index));
  }
}

/** Adds the `bytes` bytes at `other` to those at `target`, modulo 2; what lies behind them stays as it is. */
export function xorInto(target: usize, other: usize, bytes: usize): void {
  const whole = bytes & ~15;
  let at: usize = 0;
  for (; at < whole; at += 16) v128.store(target + at, v128.xor(v128.load(target + at), v128.load(other + at)));
  for (; at < bytes; at++) store<u8>(target + at, load<u8>(target + at) ^ load<u8>(other + at));
}
