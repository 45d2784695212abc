// Ends whatever a test left below its temporary folder: processes, mounts, network namespaces and files. Processes are
// known by an environment variable that all of them inherit, so daemons are found too; namespaces by their names.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { basename } from 'node:path';

/** Environment variable that marks the processes of one test; its value is the test's folder. */
export const RUN_MARK = 'XCORE_TEST_RUN';

/** Where named network namespaces are (ip-netns(8)). */
export const NAMESPACES = '/run/netns';

/** Ids of the living processes that carry the mark of `dir`, this one excepted. */
export function markedPids(dir: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`${RUN_MARK}=${dir}`)) found.push(pid);
    } catch {
      // gone in the meantime, or another user's
    }
  }
  return found;
}

/** Mount points at or below `dir`, innermost first. */
export function mountsBelow(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\(\d{3})/g, (_, o: string) => String.fromCharCode(parseInt(o, 8))),
    )
    .filter((path) => path === dir || path.startsWith(`${dir}/`))
    .reverse();
}

/** Detaches one mount, dead or alive. */
export function detach(path: string): void {
  const lazy = process.getuid?.() === 0 ? ['umount', '-l', path] : ['fusermount3', '-uz', path];
  spawnSync(lazy[0] ?? '', lazy.slice(1), { timeout: 10_000 });
}

/** Removes the network namespaces of the run in `dir`, with the devices in them. */
function removeNamespaces(dir: string): void {
  if (!existsSync(NAMESPACES)) return;
  for (const name of readdirSync(NAMESPACES)) {
    if (name.startsWith(`${basename(dir)}-`)) spawnSync('ip', ['netns', 'del', name], { timeout: 10_000 });
  }
}

/** Kills the marked processes by id, detaches mounts below `dir` and removes it, unless `keep`. */
export function endEverything(dir: string, keep: boolean): void {
  for (let round = 0; round < 5; round++) {
    const pids = markedPids(dir);
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // gone in the meantime
      }
    }
    for (const path of mountsBelow(dir)) detach(path);
    if (pids.length === 0 && mountsBelow(dir).length === 0) break;
  }
  removeNamespaces(dir);
  if (!keep && mountsBelow(dir).length === 0) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
}
