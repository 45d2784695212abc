// Reads an index through a process of its own, which damage may end without harm to this one.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { XcoreError } from '../lib/errors.ts';

const CHILD = new URL(import.meta.url.endsWith('.ts') ? './index-child.ts' : './index-child.js', import.meta.url);
/** Reading or repairing an index takes no longer than this. */
const CHILD_TIMEOUT_MS = 600_000;
/** One key and its value, as the process that reads them hands them over. */
const MAX_FRAME_BYTES = 512 * 1024 * 1024;
/** Its exit code when the index is open elsewhere. */
const LOCKED = 3;

/**
 * Opens an index in a process that may end over it, and reads its records whose keys begin with a letter of `wanted`;
 * null when not all of it can be read. HOME_LOCKED when it is in use.
 */
export function readInProcess(dir: string, wanted: string, repair = false): Promise<[Buffer, Buffer][] | null> {
  return run(dir, wanted, repair ? 'repair' : '');
}

/** Numbers of the tables that make up an index, as LevelDB finds them; null when it cannot be opened. HOME_LOCKED when it is in use. */
export async function tablesInProcess(dir: string): Promise<ReadonlySet<number> | null> {
  const records = await run(dir, '', 'tables');
  return records && new Set(records.map(([number]) => Number(number.toString())));
}

async function run(dir: string, wanted: string, mode: 'repair' | 'tables' | ''): Promise<[Buffer, Buffer][] | null> {
  const args = [fileURLToPath(CHILD), dir, wanted, mode];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'], timeout: CHILD_TIMEOUT_MS });
  const ended = new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null));
    child.once('close', resolve);
  });
  const records: [Buffer, Buffer][] = [];
  let waiting: Buffer[] = [];
  let [size, needed] = [0, 8];
  for await (const bytes of child.stdout as AsyncIterable<Buffer>) {
    waiting.push(bytes);
    size += bytes.length;
    if (size < needed) continue;
    const all = Buffer.concat(waiting, size);
    const { at, next } = takeRecords(all, records);
    waiting = [all.subarray(at)];
    size -= at;
    needed = next;
  }
  const code = await ended;
  if (code === LOCKED) throw new XcoreError('HOME_LOCKED', `another xcore process uses ${dir}`);
  return code === 0 ? records : null;
}

/** Takes whole records; tells where the rest begins, and how long it must be to hold another one. */
function takeRecords(bytes: Buffer, records: [Buffer, Buffer][]): { at: number; next: number } {
  let at = 0;
  for (;;) {
    if (bytes.length < at + 8) return { at, next: 8 };
    const keyEnd = 8 + bytes.readUInt32LE(at);
    const end = keyEnd + bytes.readUInt32LE(at + 4);
    if (end > MAX_FRAME_BYTES) throw new XcoreError('TOO_LARGE', 'the index holds a record that is too large');
    if (bytes.length < at + end) return { at, next: end };
    records.push([
      Buffer.from(bytes.subarray(at + 8, at + keyEnd)),
      Buffer.from(bytes.subarray(at + keyEnd, at + end)),
    ]);
    at += end;
  }
}
