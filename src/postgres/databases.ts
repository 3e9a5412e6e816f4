/** What is put right, and looked at, in each database once the server runs. */
import { KlosetNbdError } from '../core/errors.ts';
import type { PgSession } from './pg-session.ts';

/** Event triggers are turned off by a setting from this major version on. */
const EVENT_TRIGGERS_SETTING_SINCE = 17;
/** Databases record their collation's version from this major version on. */
const COLLATION_VERSION_SINCE = 15;

const DISABLE_EVENT_TRIGGERS = `
do $$ declare name text; begin
  for name in select evtname from pg_event_trigger where evtenabled <> 'D' loop
    execute format('alter event trigger %I disable', name);
  end loop;
end $$;`;

const MISSING_EXTENSIONS = `
select extname from pg_extension left join pg_available_extensions on name = extname where name is null order by 1`;

const COLLATION_CHANGED = `
select datcollversion, pg_database_collation_actual_version(oid) from pg_database
where datname = current_database() and datcollversion <> pg_database_collation_actual_version(oid)`;

/** Turns event triggers off; resolves to what an operator should know, one line each. */
export async function defuseDatabases({ sql, facts, examination }: PgSession): Promise<string[]> {
  const { major } = examination.server;
  const warnings: string[] = [];
  for (const database of facts.databases) {
    try {
      if (major < EVENT_TRIGGERS_SETTING_SINCE) await sql.query(database, DISABLE_EVENT_TRIGGERS);
      const missing = (await sql.query(database, MISSING_EXTENSIONS)).map(([name]) => name);
      if (missing.length > 0) {
        warnings.push(
          `Database ${database} uses extensions that are not installed here: ${missing.join(', ')}. What needs them fails.`,
        );
      }
      const [changed] = major < COLLATION_VERSION_SINCE ? [] : await sql.query(database, COLLATION_CHANGED);
      if (changed !== undefined) {
        warnings.push(
          `Database ${database} was made with collation version ${changed[0]}, this machine has ${changed[1]}: order and indexes of text may be wrong until REINDEX.`,
        );
      }
    } catch (error) {
      if (!(error instanceof KlosetNbdError)) throw error;
      warnings.push(`${error.message}. The other databases are not touched by that.`);
    }
  }
  return warnings;
}
