// The option --mirrors, which several commands have.

import { MAX_MIRRORS } from '../bridge/policy.ts';
import { XcoreError } from '../lib/errors.ts';

/** Checks a number of mirrors; 0 where none was given. USAGE. */
export function checkMirrors(mirrors: number | undefined): number {
  if (mirrors === undefined) return 0;
  if (Number.isInteger(mirrors) && mirrors >= 1 && mirrors <= MAX_MIRRORS) return mirrors;
  throw new XcoreError('USAGE', `--mirrors is from 1 to ${MAX_MIRRORS}`);
}
