// What a person is told of this machine's disk: bytes of a shard that are damaged, an index that
// cannot be written or read. Knows no stores.

import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Problems } from './problems.ts';

/** Where it is told. */
export interface DiskProblemsComponents {
  readonly problems: Problems;
  readonly log: Logger;
}

/** Local bytes of a shard are damaged; `lost` when no host has them. */
export function tellDamagedShard({ problems, log }: DiskProblemsComponents, shard: number, lost: boolean): void {
  log.error({ shard, lost }, 'local bytes of a shard are damaged');
  problems.set(
    `damaged:${shard}`,
    'CORRUPT_SHARD',
    lost
      ? `bytes that only this machine had (shard ${shard}) are damaged; the files that hold them cannot be read whole`
      : `the local copy of shard ${shard} was damaged and is fetched again`,
    'check this disk',
  );
}

/** The index cannot be written any more; can be again with null. */
export function tellIndexHealth({ problems, log }: DiskProblemsComponents, failure: Error | null): void {
  if (failure === null) {
    problems.clear('index');
    log.info({}, 'changes can be written to this disk again');
    return;
  }
  log.error({ error: failure }, 'changes cannot be written to this disk');
  const message = `read-only, since changes cannot be written to this disk: ${failure.message}`;
  const advice = hasCode(failure, 'ENOSPC')
    ? 'make room on this disk; what was acknowledged is kept'
    : 'check this disk; what was acknowledged is kept';
  problems.set('index', failure instanceof XcoreError ? failure.code : 'EIO', message, advice);
}

/** A record of the index cannot be read. */
export function tellDamagedIndex({ problems, log }: DiskProblemsComponents, error: Error): void {
  log.error({ error }, 'a record of the index is damaged');
  const message = 'the index of this volume is damaged: what it held cannot be read';
  problems.set('index-damage', 'CORRUPT_RECORD', message, 'unmount, then: xcore fsck --repair');
}
