#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import yargs from 'yargs';
import {
  AssertionError,
  CorruptStoreError,
  exitCodes,
  KlosetNbdError,
  UnsupportedError,
  UserError,
} from '../core/errors.ts';
import { logLevels } from '../observability/log.ts';
import { normaliseArguments } from './arguments.ts';
import { attachCommand } from './attach.ts';
import { cacheOptions } from './cache-options.ts';
import { cleanupCommand } from './cleanup.ts';
import { cloneCommand } from './clone.ts';
import { detachCommand } from './detach.ts';
import { diffCommand } from './diff.ts';
import { digestCommand } from './digest.ts';
import { doctorCommand } from './doctor.ts';
import { drillCommand } from './drill.ts';
import { exportCommand } from './export.ts';
import { inspectCommand } from './inspect.ts';
import { pgCommand } from './pg.ts';
import { profileCommand } from './profile.ts';
import { serveCommand } from './serve.ts';
import { snapshotsCommand } from './snapshots.ts';
import { statusCommand } from './status.ts';
import { storeOptions } from './store-options.ts';
import { topCommand } from './top.ts';
import { verifyCommand } from './verify.ts';

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** What may be given more than once, and yargs' own list of words. */
const REPEATABLE = ['listen', 'allow', 'prefetch', 'snapshots', 'tablespace', '_', '--'];

async function main(): Promise<void> {
  const parser = storeOptions(yargs(normaliseArguments(process.argv.slice(2))))
    .scriptName('kloset-nbd')
    .usage(
      '$0 <command>\n\nServes snapshots of a Kloset store (plakar) as writable ext4 disks over NBD, without restoring them.',
    )
    .options(cacheOptions)
    .option('log-level', { describe: 'What is logged to standard error', choices: logLevels, default: 'info' as const })
    .command(serveCommand)
    .command(snapshotsCommand)
    .command(cloneCommand)
    .command(exportCommand)
    .command(diffCommand)
    .command(inspectCommand)
    .command(digestCommand)
    .command(pgCommand)
    .command(attachCommand)
    .command(detachCommand)
    .command(statusCommand)
    .command(topCommand)
    .command(cleanupCommand)
    .command(doctorCommand)
    .command(drillCommand)
    .command(verifyCommand)
    .command(profileCommand)
    .demandCommand(1, 'Name a command, such as serve or pg.')
    .strict()
    .check(requireSingleOptions)
    .parserConfiguration({
      'duplicate-arguments-array': true,
      'parse-numbers': false,
      'populate--': true,
      'parse-positional-numbers': false,
    })
    .version(packageVersion())
    .help()
    .alias('help', 'h')
    .wrap(asksForHelp() ? Math.min(120, process.stdout.columns ?? 120) : null)
    .epilogue('Exit codes: 0 done, 1 failed, 64 usage, 65 damaged data, 66 no such store, 77 passphrase, 78 version.')
    .fail((message, error) => {
      // yargs spreads some complaints over several lines.
      throw error ?? new UserError(`${message.replace(/\s+/g, ' ')} "kloset-nbd --help" shows how it is used.`);
    });
  await parser.parseAsync();
}

/** yargs renders a command's help whenever it runs one; unless somebody asks for it, it need not be laid out. */
function asksForHelp(): boolean {
  return process.argv.some((word) => word === '--help' || /^-[a-zA-Z]*h$/.test(word));
}

/** yargs makes an array of an option that is given twice; of those that take one value that would be none. */
function requireSingleOptions(given: Record<string, unknown>): true {
  for (const [name, value] of Object.entries(given)) {
    if (!Array.isArray(value) || REPEATABLE.includes(name)) continue;
    throw new UserError(`--${name} is given ${value.length} times; give it once.`);
  }
  return true;
}

/** plakar's exit codes (README). */
function exitCodeOf(error: unknown): number {
  if (error instanceof UserError) return error.exitCode;
  if (error instanceof UnsupportedError) return exitCodes.version;
  if (error instanceof CorruptStoreError) return exitCodes.damagedData;
  return exitCodes.failure;
}

// Whoever reads our output may stop when they have seen enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

try {
  await main();
} catch (error) {
  // What was thrown on purpose says itself what to do; for a bug the stack is the best there is.
  const isOwn = error instanceof KlosetNbdError && !(error instanceof AssertionError);
  process.stderr.write(`kloset-nbd: ${isOwn ? error.message : ((error as Error).stack ?? String(error))}\n`);
  process.exitCode = exitCodeOf(error);
}
