import { describeKillsUnderPgbench } from './pgbench-kills.ts';

describeKillsUnderPgbench(2);
