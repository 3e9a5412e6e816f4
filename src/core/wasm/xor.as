/** Adds the `bytes` bytes at `other` to those at `target`, modulo 2; what lies behind them stays as it is. */
export function xorInto(target: usize, other: usize, bytes: usize): void {
  const whole = bytes & ~15;
  let at: usize = 0;
  for (; at < whole; at += 16) v128.store(target + at, v128.xor(v128.load(target + at), v128.load(other + at)));
  for (; at < bytes; at++) store<u8>(target + at, load<u8>(target + at) ^ load<u8>(other + at));
}
