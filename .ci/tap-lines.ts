// Reads a TAP 14 stream line by line: counts assertions, and picks the lines that a person wants to see.

/** What a stream came to. */
export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

interface Subtest {
  readonly indent: number;
  readonly name: string;
  points: number;
  failed: number;
}

const WIDTH = 100;

/** Takes the lines of one run of tap; `totals` counts assertions, not the summaries of their subtests. */
export class TapLines {
  readonly totals: Totals = { passed: 0, failed: 0, skipped: 0 };
  readonly #open: Subtest[] = [];
  /** Indent of the failed point whose details are being shown; -1 when none. */
  #showing = -1;

  /** Takes one line and gives those to print. */
  take(line: string): string[] {
    const subtest = /^( *)# Subtest: (.*)$/.exec(line);
    if (subtest) {
      this.#open.push({ indent: subtest[1]!.length, name: subtest[2]!, points: 0, failed: 0 });
      this.#showing = -1;
      return [];
    }
    const point = /^( *)(not )?ok\b(?: \d+)?(?: - )?(.*)$/.exec(line);
    if (point) return this.#point(point[1]!.length, point[2] !== undefined, point[3]!);
    if (this.#showing >= 0 && line.startsWith(' '.repeat(this.#showing + 2))) return [line];
    this.#showing = -1;
    if (/^ *# (time=|\{|No coverage)/.test(line) || /^ *(TAP version|\d+\.\.\d+|[{}]?$)/.test(line)) return [];
    return /^ *(#|Bail out)/.test(line) ? [line] : [];
  }

  #point(indent: number, failed: boolean, rest: string): string[] {
    const skipped = /# (skip|todo)/i.test(rest);
    const summary = this.#open.at(-1)?.indent === indent ? this.#open.pop() : undefined;
    const around = this.#open.at(-1);
    if (summary && around) {
      around.points += summary.points;
      around.failed += summary.failed;
    }
    // The summary of a subtest counts only if it fails for a reason of its own, such as a timeout.
    const counts = summary === undefined || (failed && summary.failed === 0) || (skipped && summary.points === 0);
    if (counts) {
      if (skipped) this.totals.skipped += 1;
      else if (failed) this.totals.failed += 1;
      else this.totals.passed += 1;
      if (around) {
        around.points += 1;
        if (failed && !skipped) around.failed += 1;
      }
    }
    this.#showing = failed && !skipped && counts ? indent : -1;
    if (indent === 0) return [`${failed ? 'FAILED ' : 'ok     '}${rest.replace(/ # time=/, '  ')}`.slice(0, WIDTH)];
    if (!failed || skipped || !counts) return [];
    const where = this.#open.map((open) => open.name).join(' > ');
    return [`${' '.repeat(indent)}not ok: ${where} > ${rest}`];
  }
}
