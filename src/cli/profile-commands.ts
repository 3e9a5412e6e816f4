/** What `profile record` asks of a running server. */
import type { ControlCommand } from '../control/control-server.ts';
import { UserError } from '../core/errors.ts';
import type { TracedPart, WarmUps } from '../warmup/warm-ups.ts';

export interface ProfileCommandsOptions {
  readonly warmUps: WarmUps;
  /** The directories of snapshots that an export's name stands for; undefined if there is no such export. */
  readonly partsOf: (name: string) => Promise<readonly TracedPart[] | undefined>;
}

export function profileCommands({ warmUps, partsOf }: ProfileCommandsOptions): Record<string, ControlCommand> {
  const partsNamed = async (name: unknown) => {
    if (typeof name !== 'string') throw new UserError('The name of an export is a text.');
    const parts = await partsOf(name);
    if (parts === undefined) throw new UserError(`There is no export "${name}".`);
    return parts;
  };
  return {
    'profile.record': async ({ export: name }) => warmUps.record(await partsNamed(name)),
    'profile.begin': async ({ export: name }) => {
      warmUps.begin(await partsNamed(name));
      return null;
    },
  };
}
