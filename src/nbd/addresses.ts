/** Addresses of clients and listeners: which of them are this machine's own, and which are let in. */
import { BlockList, isIP, SocketAddress } from 'node:net';
import { UserError } from '../core/errors.ts';

/** An IPv4 address as a socket for both families shows it, as itself; an IPv6 address without its interface. */
export function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
}

/** Whether only processes of this machine can come from, or to, the address. */
export function isLoopback(address: string): boolean {
  const plain = plainAddress(address);
  return isIP(plain) === 4 ? plain.startsWith('127.') : plain === '::1';
}

/** Who may connect, by address. */
export class AllowList {
  // Apart: in one list Node takes `::/0` for all of IPv4 too.
  readonly #ipv4 = new BlockList();
  readonly #ipv6 = new BlockList();

  /** Each an address, or a network as ADDRESS/BITS. Throws UserError. */
  constructor(networks: readonly string[]) {
    for (const network of networks) this.#add(network);
  }

  /** `address` as a socket gives it. */
  has(address: string): boolean {
    const plain = plainAddress(address);
    return isIP(plain) === 4 ? this.#ipv4.check(plain, 'ipv4') : this.#ipv6.check(plain, 'ipv6');
  }

  #add(network: string): void {
    const match = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(network);
    const family = isIP(match?.[1] ?? '');
    const widthBits = family === 4 ? 32 : 128;
    const bits = match?.[2] === undefined ? widthBits : Number(match[2]);
    if (match === null || family === 0 || bits > widthBits) {
      throw new UserError(
        `--allow ${network}: write an address or a network such as 192.0.2.7, 10.0.0.0/8 or fd00::/8.`,
      );
    }
    // Normal form, which shows `::ffff:a00:0` as IPv4.
    const { address } = new SocketAddress({ address: match[1]!, family: family === 4 ? 'ipv4' : 'ipv6' });
    const mapped = family === 6 && bits >= 96 ? plainAddress(address) : address;
    if (isIP(mapped) === 4) this.#ipv4.addSubnet(mapped, family === 4 ? bits : bits - 96, 'ipv4');
    else this.#ipv6.addSubnet(address, bits, 'ipv6');
  }
}
