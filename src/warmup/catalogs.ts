/**
 * The catalogs that PostgreSQL reads before it can answer a first query, with their indexes, in the order in which it
 * asks: tables' own description, then what names, types, operators and plans are looked up in. Their OIDs are fixed
 * (src/include/catalog/pg_*.h), and so are their files' numbers until a table is rewritten. Left out is what nobody reads
 * at a start: dependencies, descriptions, text search, large objects, the information schema.
 */
export const STARTUP_CATALOGS: readonly number[] = [
  ...[1259, 2662, 2663], // pg_class
  ...[1249, 2658, 2659], // pg_attribute
  ...[1247, 2703, 2704], // pg_type
  ...[1255, 2690, 2691], // pg_proc
  ...[2610, 2678, 2679], // pg_index
  ...[2616, 2686, 2687], // pg_opclass
  ...[2601, 2651, 2652], // pg_am
  ...[2603, 2655], // pg_amproc
  ...[2602, 2653, 2654], // pg_amop
  ...[2617, 2688, 2689], // pg_operator
  ...[2753, 2754, 2755], // pg_opfamily
  ...[2615, 2684, 2685], // pg_namespace
  ...[2605, 2660, 2661], // pg_cast
  ...[2600, 2650], // pg_aggregate
  ...[2618, 2692, 2693], // pg_rewrite
  ...[2619, 2696], // pg_statistic
  ...[2606, 2664, 2665, 2666, 2667], // pg_constraint
  ...[2604, 2656, 2657], // pg_attrdef
  ...[2620, 2699, 2701, 2702], // pg_trigger
  ...[2611, 2187, 2680], // pg_inherits
  ...[3350, 3351], // pg_partitioned_table
  ...[2612, 2681, 2682], // pg_language
  ...[3079, 3080, 3081], // pg_extension
  ...[3456, 3085, 3164], // pg_collation
  ...[3541, 3542, 2228], // pg_range
  ...[3381, 3379, 3380, 3997], // pg_statistic_ext
  ...[3466, 3467, 3468], // pg_event_trigger
  ...[3501, 3502, 3503, 3534], // pg_enum
];

/** Forks are asked for with their relation: tiny, and where the kernel reads ahead they are read in any case. */
export const FORK_SUFFIXES = ['', '_fsm', '_vm'];

/** template1: `pg` works in it first. Who starts a server by himself asks for another database. */
export const TEMPLATE1_OID = 1;

/** template0 since PostgreSQL 15: nobody connects to it. */
export const TEMPLATE0_OID = 4;
