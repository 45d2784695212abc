// Has this process stand back behind all others: a low priority for the processor, and the lowest one for disks that
// keeps it going. Harmless where the system does not know such things.

import { readdirSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import koffi from 'koffi';

/** ioprio_set(2), linux/ioprio.h: one thread, class best-effort, level 7 of 7. */
const SYSCALL_IOPRIO_SET: Partial<Record<string, number>> = { x64: 251, arm64: 30 };
const WHO_PROCESS = 1;
const BEST_EFFORT_LOWEST = (2 << 13) | 7;

/** Lowers both priorities of all threads; those that start later inherit them. Never throws. */
export function standBack(): void {
  const ioprioSet = ioprioSetter();
  // On Linux, both belong to threads: 0 would be the main one only.
  for (const thread of threads()) {
    attempt(() => setPriority(thread, constants.priority.PRIORITY_BELOW_NORMAL));
    attempt(() => ioprioSet?.(thread));
  }
}

function ioprioSetter(): ((thread: number) => void) | undefined {
  const number = process.platform === 'linux' ? SYSCALL_IOPRIO_SET[process.arch] : undefined;
  if (number === undefined) return undefined;
  try {
    const syscall = koffi.load('libc.so.6').func('long syscall(long number, long which, long who, long ioprio)');
    return (thread) => void syscall(number, WHO_PROCESS, thread, BEST_EFFORT_LOWEST);
  } catch {
    return undefined; // another C library
  }
}

function threads(): number[] {
  try {
    return readdirSync('/proc/self/task').map(Number);
  } catch {
    return [0];
  }
}

/** A thread may have ended, and some systems forbid it. */
function attempt(run: () => void): void {
  try {
    run();
  } catch {
    // as before, then
  }
}
