// The mount that this home serves, as its daemon tells, and the wait for that daemon to end.

import { readFileSync } from 'node:fs';
import { callControl } from '../client/control.ts';
import type { MountStatus } from '../client/control-api.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Paths } from '../lib/paths.ts';

const END_TIMEOUT_MS = 30_000;
const POLL_MS = 20;

/** Status of the mount of a home, or null when it serves none. */
export async function findMount(paths: Paths): Promise<MountStatus | null> {
  try {
    return await callControl(paths.controlSocket, 'status', {});
  } catch (error) {
    if (hasCode(error, 'NOT_MOUNTED', 'CLOSED')) return null;
    throw error;
  }
}

/** Waits until a process is gone, so that the home is free for the next; TIMEOUT when it stays. */
export async function untilProcessEnds(pid: number): Promise<void> {
  const deadline = performance.now() + END_TIMEOUT_MS;
  while (isAlive(pid)) {
    if (performance.now() > deadline) {
      throw new XcoreError(
        'TIMEOUT',
        `unmounted, but the process ${pid} of the mount is still there; its log tells why`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** A process that has ended and was not yet waited for counts as gone. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
