// What a check finds, within bounds.

/** Findings that are told one by one; more are only counted. */
export const MAX_FINDINGS = 1_000;

/** Which part of a volume is wrong. */
export type FindingArea = 'index' | 'tree' | 'extents' | 'shards' | 'files' | 'log';

/** One thing that is wrong. */
export interface Finding {
  readonly area: FindingArea;
  /** One sentence without a full stop. */
  readonly message: string;
  /** What can be done: a rebuilt index sets it right, the file is fetched again, or its bytes are gone. */
  readonly remedy: 'rebuild' | 'refetch' | 'none';
}

/** Collects findings. */
export class Findings {
  readonly list: Finding[] = [];
  count = 0;
  /** Those that a rebuild of the index sets right. */
  rebuildable = 0;

  add(area: FindingArea, message: string, remedy: Finding['remedy'] = 'rebuild'): void {
    this.count++;
    if (remedy === 'rebuild') this.rebuildable++;
    if (this.list.length < MAX_FINDINGS) this.list.push({ area, message, remedy });
  }
}
