/** What of a snapshot a server starts on, and what has to be done before: decided before anything is mounted. */
import type { Closers } from '../core/closers.ts';
import type { KlosetSource } from '../source/kloset-source.ts';
import { type Examination, examine } from './examination.ts';
import { LeavingLinksError, type LinkChange, planLinks } from './links.ts';
import type { PgDisk, PgOptions } from './pg-session.ts';

export interface StartPlan {
  /** The one that was asked for, or the wider one where only that has what links lead to. */
  readonly disk: PgDisk;
  readonly source: KlosetSource;
  readonly examination: Examination;
  readonly links: readonly LinkChange[];
}

/** Rejects with UserError that says what is in the way. `directory` is for files of its own. */
export async function planStart(options: PgOptions, directory: string, closers: Closers): Promise<StartPlan> {
  const { disk } = options;
  try {
    return await planOn(disk, options, directory, closers);
  } catch (error) {
    if (!(error instanceof LeavingLinksError) || disk.wider === undefined) throw error;
    return planOn(disk.wider, options, directory, closers);
  }
}

async function planOn(disk: PgDisk, options: PgOptions, directory: string, closers: Closers): Promise<StartPlan> {
  const source = await options.store.openSource(disk.header, disk.path);
  closers.add(() => source.close());
  const { chooseServer, force } = options;
  const { tree } = source;
  const snapshot = { tree, content: source, root: source.root };
  const look = { chooseServer, force, workDirectory: directory, within: disk.within };
  const examination = await examine(snapshot, look);
  const links = planLinks({
    tree,
    root: source.root,
    dataDirectory: examination.dataDirectory,
    mapped: examination.mapped,
    placed: options.tablespaces,
    withoutTablespaces: options.withoutTablespaces,
  });
  return { disk, source, examination, links };
}
