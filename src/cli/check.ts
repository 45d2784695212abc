// What a check of this machine finds.

/** One finding. `warning` is worth knowing; `missing` stops a command that needs it. */
export interface Check {
  readonly name: string;
  readonly state: 'ok' | 'warning' | 'missing';
  readonly detail: string;
  /** What to type or do; empty when all is well. */
  readonly fix: string;
}

/** A finding that all is well. */
export function ok(name: string, detail: string): Check {
  return { name, state: 'ok', detail, fix: '' };
}

/** A finding that something may get in the way. */
export function warning(name: string, detail: string, fix: string): Check {
  return { name, state: 'warning', detail, fix };
}

/** A finding that something needed is not there. */
export function missing(name: string, detail: string, fix: string): Check {
  return { name, state: 'missing', detail, fix };
}
