/**
 * What TLS has to say to an option before anything else looks at it. Pure; the words of the specification are from its
 * chapter "TLS support".
 *
 *   off                            no TLS: the NOTLS mode
 *   offered  -> established        with or without: clients choose (SELECTIVETLS, for no export in particular)
 *   required -> established        nothing but NBD_OPT_STARTTLS and NBD_OPT_ABORT without (FORCEDTLS)
 */
import type { Refusal } from './handshake.ts';
import { optionReplies, options } from './protocol.ts';

export type TlsState = 'off' | 'offered' | 'required' | 'established';

/** How an option fares: TLS begins, it is refused, or TLS has nothing to do with it (undefined). */
export function judgeByTls(tls: TlsState, option: number, dataBytes: number): 'start' | Refusal | undefined {
  if (option === options.NBD_OPT_STARTTLS) return judgeStart(tls, dataBytes);
  // NBD_OPT_ABORT gives nothing away; "MUST reply with NBD_REP_ERR_TLS_REQD" to all others, those not supported included.
  if (tls !== 'required' || option === options.NBD_OPT_ABORT) return undefined;
  return { reply: optionReplies.NBD_REP_ERR_TLS_REQD, message: 'this server wants TLS: begin with NBD_OPT_STARTTLS' };
}

function judgeStart(tls: TlsState, dataBytes: number): 'start' | Refusal {
  const { NBD_REP_ERR_INVALID, NBD_REP_ERR_POLICY } = optionReplies;
  if (tls === 'off') return { reply: NBD_REP_ERR_POLICY, message: 'this server does not offer TLS' };
  if (tls === 'established') return { reply: NBD_REP_ERR_INVALID, message: 'TLS is established already' };
  if (dataBytes > 0) return { reply: NBD_REP_ERR_INVALID, message: 'NBD_OPT_STARTTLS takes no data' };
  return 'start';
}
