// What a measurement is given.

import type { Run } from '../support/run.ts';
import type { Target } from './target.ts';

/** How much to move. */
export interface Amounts {
  readonly sizeMib: number;
  readonly files: number;
  /** Files that a volume holds while it is mounted, by rising numbers. */
  readonly mounted: readonly number[];
}

/** One measurement. */
export interface Occasion {
  readonly run: Run;
  readonly target: Target;
  readonly amounts: Amounts;
  /** From 1. */
  readonly round: number;
  /** An archive of a source tree, on a plain disk. */
  readonly archive: string;
  /** After so long a program is ended, and the turn fails. */
  readonly limitMs: number;
}
