/**
 * `npm run fuzz -- [--seconds N | --cases N] [--seed N] [TARGET...]`: default 60 seconds over all targets and a seed of
 * the moment, which is printed. Exit 1 and the input in base64 if anything is found.
 */
import { parseArgs } from 'node:util';
import { MiB } from '../../src/core/units.ts';
import { fuzz } from './fuzz.ts';
import { targets } from './targets.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seed: { type: 'string' }, seconds: { type: 'string' }, cases: { type: 'string' } },
});
const unknown = positionals.filter((name) => targets.every((target) => target.name !== name));
if (unknown.length > 0) {
  console.error(`No such target: ${unknown.join(', ')}. There are: ${targets.map(({ name }) => name).join(', ')}.`);
  process.exit(64);
}
const chosen = positionals.length === 0 ? targets : targets.filter(({ name }) => positionals.includes(name));
const seed = Number(values.seed ?? Date.now() % 2 ** 32);
const casesMax = values.cases === undefined ? Number.POSITIVE_INFINITY : Number(values.cases);
const seconds = Number(values.seconds ?? (values.cases === undefined ? 60 : Number.POSITIVE_INFINITY));

console.log(`node ${process.version}, seed ${seed}, targets: ${chosen.map(({ name }) => name).join(' ')}`);
const start = performance.now();
const report = await fuzz(chosen, {
  seed,
  more: (done) => done < casesMax && performance.now() - start < seconds * 1000,
});
for (const { target, input, problem } of report.findings) {
  console.error(`\n${target}: ${problem}\ninput (base64): ${Buffer.from(input).toString('base64')}`);
}
for (const [name, count] of report.accepted) console.log(`  ${name.padEnd(20)} ${count} accepted`);
const peakMiB = Math.round((process.resourceUsage().maxRSS * 1024) / MiB);
console.log(`${report.cases} cases, ${report.findings.length} findings, peak memory ${peakMiB} MiB`);
if (report.findings.length > 0) process.exitCode = 1;
