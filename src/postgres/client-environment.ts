/** What clients of a clone's PostgreSQL may have of the environment they are started in. */

/**
 * Variables that lead a client elsewhere whatever PGHOST says (a live server, on the machine of somebody who works with one), and
 * those by which it would refuse a Unix socket that trusts it. Source: PostgreSQL's documentation, libpq, "Environment
 * Variables"; a service goes before the variables.
 */
const TARGETS = [
  'PGCHANNELBINDING',
  'PGGSSENCMODE',
  'PGHOSTADDR',
  'PGREQUIREAUTH',
  'PGREQUIREPEER',
  'PGSERVICE',
  'PGTARGETSESSIONATTRS',
];

/** The environment without them: with PGHOST and PGPORT a client then reaches that server or none. */
export function withoutTarget(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !TARGETS.includes(name)));
}
