import { UserError } from '../core/errors.ts';
import type { PgSession } from './pg-session.ts';

const READER = 'kloset_reader';

/** Makes a role that reads everything and writes nothing; resolves to its name. Rejects with UserError before PostgreSQL 14. */
export async function createReader({ sql, examination, facts }: PgSession): Promise<string> {
  const { major } = examination.server;
  if (major < 14) throw new UserError(`--read-only-role needs PostgreSQL 14 (pg_read_all_data); this is ${major}.`);
  await sql.query(
    facts.databases[0] ?? 'template1',
    `do $$ begin
       if not exists (select from pg_roles where rolname = '${READER}') then create role ${READER} login; end if;
     end $$;
     grant pg_read_all_data to ${READER};
     alter role ${READER} set default_transaction_read_only = on;`,
  );
  return READER;
}
