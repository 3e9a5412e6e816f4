/** TLS in the haggling, without a socket: which option gets which answer in which state. */
import { describe, expect, test } from 'vitest';
import { begin, type Decision, decide, type HaggleState, refuseTooBig } from '../../../src/nbd/handshake.ts';
import { nbdOptionReply, options, optionReplies as rep } from '../../../src/nbd/protocol.ts';
import { contextData, infoData } from '../../support/nbd-client.ts';

const everyOption = [...Object.values(options), 0, 4, 12, 0xffffffff];
const dataOf = (option: number) => {
  if (option === options.NBD_OPT_GO || option === options.NBD_OPT_INFO) return infoData('disk');
  if (option === options.NBD_OPT_SET_META_CONTEXT || option === options.NBD_OPT_LIST_META_CONTEXT) {
    return contextData('disk', []);
  }
  return Buffer.alloc(0);
};
const stateOf = (tls: 'off' | 'offered' | 'required', flags = 3): HaggleState => begin(flags, tls)!;
/** The one error reply, or where it goes on. */
const outcome = (decision: Decision): number | string => {
  if ('ask' in decision) return 'ask';
  const [reply] = decision.replies;
  if (reply === undefined) return decision.next.to;
  const { reply: type } = nbdOptionReply.read(Buffer.from(reply));
  return type === rep.NBD_REP_ACK ? decision.next.to : type;
};

describe('where TLS is required', () => {
  test.each(everyOption)('option %i without it', (option) => {
    const expected: Record<number, number | string> = {
      [options.NBD_OPT_STARTTLS]: 'tls',
      [options.NBD_OPT_ABORT]: 'close',
      [options.NBD_OPT_EXPORT_NAME]: 'close',
    };
    const answer = decide(stateOf('required'), { option, data: dataOf(option) });
    expect(outcome(answer)).toBe(expected[option] ?? rep.NBD_REP_ERR_TLS_REQD);
  });

  test('an option too large to be read is told the same, and STARTTLS that it is too large', () => {
    const tooBig = (option: number) => outcome(refuseTooBig(stateOf('required'), option, 1 << 20));
    expect(tooBig(options.NBD_OPT_GO)).toBe(rep.NBD_REP_ERR_TLS_REQD);
    expect(tooBig(999)).toBe(rep.NBD_REP_ERR_TLS_REQD);
    expect(tooBig(options.NBD_OPT_EXPORT_NAME)).toBe('close');
    expect(tooBig(options.NBD_OPT_STARTTLS)).toBe(rep.NBD_REP_ERR_INVALID);
    expect(outcome(refuseTooBig(stateOf('offered'), options.NBD_OPT_GO, 1 << 20))).toBe(rep.NBD_REP_ERR_TOO_BIG);
  });
});

test('where TLS is offered, options without it are answered as ever', () => {
  for (const option of everyOption.filter((code) => code !== options.NBD_OPT_STARTTLS)) {
    const asked = { option, data: dataOf(option) };
    expect(outcome(decide(stateOf('offered'), asked))).toBe(outcome(decide(stateOf('off'), asked)));
  }
  expect(outcome(decide(stateOf('offered'), { option: options.NBD_OPT_STARTTLS, data: Buffer.alloc(0) }))).toBe('tls');
});

test('where there is no TLS, STARTTLS is refused and nothing is ever said to require it', () => {
  for (const data of [Buffer.alloc(0), Buffer.from('x')]) {
    const answer = decide(stateOf('off'), { option: options.NBD_OPT_STARTTLS, data });
    expect(outcome(answer)).toBe(rep.NBD_REP_ERR_POLICY);
  }
});

test('STARTTLS takes no data', () => {
  for (const tls of ['offered', 'required'] as const) {
    const answer = decide(stateOf(tls), { option: options.NBD_OPT_STARTTLS, data: Buffer.from('x') });
    expect(outcome(answer)).toBe(rep.NBD_REP_ERR_INVALID);
  }
});

test('what was agreed on before TLS is forgotten, but for the client flags', () => {
  for (const flags of [1, 3]) {
    const before: HaggleState = {
      ...stateOf('offered', flags),
      style: 'extended',
      selected: { exportName: 'disk', contexts: [] },
    };
    const answer = decide(before, { option: options.NBD_OPT_STARTTLS, data: Buffer.alloc(0) });
    expect(answer).toMatchObject({
      next: { to: 'tls', state: { tls: 'established', style: 'simple', noZeroes: flags === 3 } },
    });
    const { state } = (answer as Extract<Decision, { next: object }>).next as { state: HaggleState };
    expect(state.selected).toBeUndefined();
  }
});

test('with TLS, STARTTLS is invalid and nothing is said to require it', () => {
  const state: HaggleState = { ...stateOf('required'), tls: 'established' };
  for (const option of everyOption) {
    const answer = outcome(decide(state, { option, data: dataOf(option) }));
    expect(answer).not.toBe(rep.NBD_REP_ERR_TLS_REQD);
    if (option === options.NBD_OPT_STARTTLS) expect(answer).toBe(rep.NBD_REP_ERR_INVALID);
  }
});
