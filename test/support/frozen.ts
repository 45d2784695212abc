// Processes that stand still while their files are looked at, so that nothing vanishes or is half copied meanwhile.

import { readdirSync, readFileSync } from 'node:fs';
import { until } from './run.ts';

/** Stops processes for as long as `look` takes; they must not be those that serve what it reads. */
export async function frozen<T>(pids: readonly number[], look: () => Promise<T>): Promise<T> {
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    await until('all threads to stand still', () => pids.every(standsStill));
    return await look();
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
}

function standsStill(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
      return stat[stat.lastIndexOf(')') + 2] === 'T';
    } catch {
      return false; // it has ended in the meantime, and is not listed any more
    }
  });
}
