// What processes have used, from /proc. Linux counts time in ticks of a hundredth of a second.

import { readFileSync, writeFileSync } from 'node:fs';

const TICKS_PER_SECOND = 100;
const MIB_PER_KIB = 1 / 1024;

function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

/** Processor time of processes so far, in seconds; what has ended counts nothing. */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const stat = read(pid, 'stat');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }
  return ticks / TICKS_PER_SECOND;
}

/** Largest resident size since resetPeak(), summed over processes, in MiB. */
export function peakMib(pids: readonly number[]): number {
  let kib = 0;
  for (const pid of pids) kib += Number(/^VmHWM:\s+(\d+) kB$/m.exec(read(pid, 'status'))?.[1] ?? 0);
  return Math.round(kib * MIB_PER_KIB);
}

/** Lets the largest resident size begin again at the present one; without the right to, it stays. */
export function resetPeak(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      writeFileSync(`/proc/${pid}/clear_refs`, '5');
    } catch {
      continue;
    }
  }
}
