import { UserError } from '../core/errors.ts';
import type { PgSession } from './pg-session.ts';

const READER = 'kloset_reader';
/** The role that may read everything. */
const READS_ALL = 'pg_read_all_data';

/** What a role of that name may do or owns beyond reading, one line each. */
const RIGHTS = `
select 'attributes' from pg_roles where rolname = '${READER}'
  and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)
union all
select 'member of ' || pg_get_userbyid(roleid) from pg_auth_members
  where member = (select oid from pg_roles where rolname = '${READER}') and pg_get_userbyid(roleid) <> '${READS_ALL}'
union all
select 'objects' from pg_shdepend
  where refclassid = 'pg_authid'::regclass and refobjid = (select oid from pg_roles where rolname = '${READER}')`;

/**
 * Makes a role that reads everything and writes nothing; resolves to its name. Rejects with UserError before PostgreSQL 14,
 * and if the backup has one of that name which may do more.
 */
export async function createReader({ sql, examination, facts }: PgSession): Promise<string> {
  const { major } = examination.server;
  if (major < 14) throw new UserError(`--read-only-role needs PostgreSQL 14 (${READS_ALL}); this is ${major}.`);
  const database = facts.databases[0] ?? 'template1';
  const rights = await sql.query(database, RIGHTS);
  if (rights.length > 0) {
    throw new UserError(
      `The backup has a role ${READER} that may do more than read (${rights.map(([right]) => right).join(', ')}): ` +
        'start without --read-only-role and make a role of another name.',
    );
  }
  await sql.query(
    database,
    `do $$ begin
       if not exists (select from pg_roles where rolname = '${READER}') then create role ${READER}; end if;
     end $$;
     alter role ${READER} login valid until 'infinity' connection limit -1;
     grant ${READS_ALL} to ${READER};
     alter role ${READER} reset all;
     alter role ${READER} set default_transaction_read_only = on;`,
  );
  return READER;
}
