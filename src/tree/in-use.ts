// A file in the folder of an index that is there while a process has it open: it stays when that process dies,
// and the next one looks at the tables before it trusts them. LevelDB's own lock says who may open it.

import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** `held`: by a process that lives; `left`: by one that did not close it. */
export type InUse = 'free' | 'held' | 'left';

function pathOf(indexDir: string): string {
  return join(indexDir, 'in-use');
}

/** When a process began, in the system's own terms; null when there is none, '' where the system does not tell. */
function birthOf(pid: number): string | null {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return null;
  }
  try {
    // proc(5): fields 3 and 22, and the name before them may hold anything
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)?.split(' ') ?? [];
    // dead, and only not yet waited for by its parent
    if (fields[0] === 'Z' || fields[0] === 'X') return null;
    return fields[19] ?? '';
  } catch {
    return '';
  }
}

/** Who has an index open, as far as its folder tells. */
export function readInUse(indexDir: string): InUse {
  let fd: number;
  try {
    fd = openSync(pathOf(indexDir), 'r');
  } catch {
    return 'free';
  }
  try {
    const [pid = '', birth, ino] = readFileSync(fd, 'utf8').trim().split(' ');
    // the copy of a folder is nobody's
    const isCopy = ino !== fstatSync(fd, { bigint: true }).ino.toString();
    return !isCopy && /^\d+$/.test(pid) && birthOf(Number(pid)) === (birth === '-' ? '' : birth) ? 'held' : 'left';
  } finally {
    closeSync(fd);
  }
}

/** Notes that this process opens the index. A disk that takes no more is no reason not to open it. */
export function noteInUse(indexDir: string): void {
  try {
    mkdirSync(indexDir, { recursive: true, mode: 0o700 });
    rmSync(pathOf(indexDir), { force: true });
    const fd = openSync(pathOf(indexDir), 'wx', 0o600);
    try {
      const { ino } = fstatSync(fd, { bigint: true });
      writeSync(fd, `${process.pid} ${birthOf(process.pid) || '-'} ${ino}\n`);
    } finally {
      closeSync(fd);
    }
  } catch {
    // the next one trusts the tables, or looks at them for nothing
  }
}

/** Notes that the index was closed. */
export function noteClosed(indexDir: string): void {
  try {
    rmSync(pathOf(indexDir), { force: true });
  } catch {
    // as above
  }
}
