import { setTimeout as delay } from 'node:timers/promises';
import type { CommandModule } from 'yargs';
import type { ControlArguments } from '../control/control-protocol.ts';
import type { ControlCommand } from '../control/control-server.ts';
import { countOption, type GlobalArguments, timerOption } from './arguments.ts';
import { connectServer } from './server-session.ts';
import { type TopOrder, type TopReport, type TopReports, topOrders } from './top-report.ts';
import { formatTop } from './top-text.ts';

interface TopArguments extends GlobalArguments {
  readonly export: string | undefined;
  readonly by: TopOrder;
  readonly interval: string;
  readonly once: boolean;
  readonly json: boolean;
  readonly rows: string | undefined;
  readonly pid: string | undefined;
}

/** Rows that a terminal's page has for everything but the rows of the tables. */
const LINES_AROUND = 12;
const ROWS_DEFAULT = 20;
const ROWS_MAX = 50_000;
const PID_MAX = 2 ** 22;
/** Clears the terminal and puts the cursor into its first place. */
const CLEAR = '\x1b[H\x1b[2J';

export const topCommand: CommandModule<object, TopArguments> = {
  command: 'top [export]',
  describe: 'Show what reading each file, database, table and index of a served snapshot costs',
  builder: (yargs) =>
    yargs
      .positional('export', { describe: 'Only the disk of this name; default: all that are open', type: 'string' })
      .option('by', {
        describe: 'What to sort by: requests, bytes fetched, or time waited',
        choices: topOrders,
        default: 'time',
      })
      .option('interval', { describe: 'How often it is shown anew', type: 'string', requiresArg: true, default: '2s' })
      .option('once', {
        describe: 'Show it once, and end; also where the output is no terminal',
        type: 'boolean',
        default: false,
      })
      .option('json', { describe: 'One JSON object, once', type: 'boolean', default: false })
      .option('rows', {
        describe: 'Rows of each table',
        type: 'string',
        requiresArg: true,
        defaultDescription: 'all in JSON, else what fits',
      })
      .option('pid', { describe: 'Which server, where several run', type: 'string', requiresArg: true }) as never,
  handler: top,
};

/** The server's side. */
export function topCommands(reports: TopReports): Readonly<Record<string, ControlCommand>> {
  return {
    top: (given: ControlArguments) =>
      reports.report({
        by: topOrders.find((order) => order === given.by) ?? 'time',
        rowsMax: Math.min(Number(given.rows) || ROWS_DEFAULT, ROWS_MAX),
        exportName: typeof given.export === 'string' ? given.export : undefined,
      }),
  };
}

async function top(given: TopArguments): Promise<void> {
  const intervalMs = Math.max(timerOption('interval', given.interval), 100);
  const rows = given.rows === undefined ? undefined : countOption('rows', given.rows, { min: 1, max: ROWS_MAX });
  const pid = given.pid === undefined ? undefined : countOption('pid', given.pid, { min: 1, max: PID_MAX });
  const isLive = process.stdout.isTTY === true && !given.once && !given.json;
  const client = await connectServer(pid, ['serve', 'pg']);
  try {
    for (;;) {
      const rowsMax = rows ?? (given.json ? ROWS_MAX : rowsOfTerminal());
      const report = (await client.call('top', { export: given.export, by: given.by, rows: rowsMax })) as TopReport;
      if (given.json) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
      else
        process.stdout.write(
          `${isLive ? CLEAR : ''}${formatTop(report, { rowsMax, columns: isLive ? columnsOfTerminal() : undefined })}`,
        );
      if (!isLive) return;
      await delay(intervalMs);
    }
  } finally {
    client.close();
  }
}

/** Two tables that grow share what a page has. */
function rowsOfTerminal(): number {
  const { rows } = process.stdout;
  return !rows ? ROWS_DEFAULT : Math.max(3, Math.floor((rows - LINES_AROUND) / 2));
}

/** Some terminals do not know, and say 0. */
function columnsOfTerminal(): number | undefined {
  return process.stdout.columns || undefined;
}
