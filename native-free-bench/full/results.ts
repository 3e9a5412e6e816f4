/** What was measured: every value of every run, and what is made of them. */

/** Who takes part, in the order of the table's columns. */
export const contestants = [
  'kloset-nbd',
  'kloset-nbd, profile',
  'plakar restore',
  'plakar cat',
  'qcow2',
  'plakar mount',
  'raw image',
] as const;
export type Contestant = (typeof contestants)[number];

export type Unit = 's' | 'ms' | 'bytes' | 'bytes/s' | '1/s' | '';

/** A row of the table: what is measured, in which unit, and which values are the good ones. */
export interface Metric {
  readonly title: string;
  readonly unit: Unit;
  readonly better: 'less' | 'more' | 'neither';
}

export interface Cell {
  readonly metric: string;
  /** Which data and store, as `scale 100, plaintext, local`. */
  readonly setting: string;
  readonly contestant: Contestant;
  readonly values: number[];
}

export interface Skip {
  readonly what: string;
  readonly why: string;
}

/** The middle one; of an even number, the mean of the two in the middle. Throws RangeError without numbers. */
export function median(numbers: readonly number[]): number {
  if (numbers.length === 0) throw new RangeError('there is no median of nothing');
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export class Results {
  readonly cells: Cell[] = [];
  readonly skips: Skip[] = [];
  readonly remarks: string[] = [];

  add(metric: string, setting: string, contestant: Contestant, value: number): void {
    const cell = this.#find(metric, setting, contestant);
    if (cell === undefined) this.cells.push({ metric, setting, contestant, values: [value] });
    else cell.values.push(value);
  }

  /** Adds to the one value of a sum over the whole run. */
  addToSum(metric: string, setting: string, contestant: Contestant, value: number): void {
    const cell = this.#find(metric, setting, contestant);
    if (cell === undefined) this.add(metric, setting, contestant, value);
    else cell.values[0]! += value;
  }

  /** Says once what is left out, and why. */
  skip(what: string, why: string): void {
    if (this.skips.some((skip) => skip.what === what && skip.why === why)) return;
    this.skips.push({ what, why });
  }

  /** What a reader of the table has to know beside its figures; each once. */
  remark(text: string): void {
    if (!this.remarks.includes(text)) this.remarks.push(text);
  }

  /** Undefined where nothing was measured. */
  median(metric: string, setting: string, contestant: Contestant = 'kloset-nbd'): number | undefined {
    const cell = this.#find(metric, setting, contestant);
    return cell && median(cell.values);
  }

  /** In the order they were first measured. */
  settings(): string[] {
    return [...new Set(this.cells.map(({ setting }) => setting))];
  }

  #find(metric: string, setting: string, contestant: Contestant): Cell | undefined {
    return this.cells.find(
      (cell) => cell.metric === metric && cell.setting === setting && cell.contestant === contestant,
    );
  }
}
