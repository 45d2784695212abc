// What a folder tree holds, as text that can be compared: path, type, mode, mtime, size, hash.
// As a program (`fingerprint.ts DIR [cold]`) it prints JSON, so that a test can give up on it.

import { createHash } from 'node:crypto';
import { open, lstat, readdir, readlink } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import type { Run } from './run.ts';

/** Path (bytes as latin1, '.' for the top) to a line with all that is compared. */
export type Fingerprint = Map<string, string>;

const PARALLEL = 4;
const READ_BYTES = 1 << 20;

async function hashFile(path: Buffer): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, READ_BYTES, null);
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

async function describe(path: Buffer, stat: BigIntStats): Promise<string> {
  const common = `${(stat.mode & 0o7777n).toString(8).padStart(4, '0')} ${stat.uid}:${stat.gid} ${stat.mtimeNs}`;
  if (stat.isDirectory()) return `dir ${common}`;
  if (stat.isSymbolicLink())
    return `link ${common} -> ${(await readlink(path, { encoding: 'buffer' })).toString('latin1')}`;
  if (stat.isFile()) return `file ${common} links=${stat.nlink} ${stat.size} ${await hashFile(path)}`;
  return `other ${stat.mode.toString(8)}`;
}

/** Walks `top` in this process; never for a mount that this process serves. */
export async function fingerprintHere(top: string): Promise<Fingerprint> {
  const found: Fingerprint = new Map();
  const waiting: { path: Buffer; name: string }[] = [{ path: Buffer.from(top), name: '.' }];
  const visit = async ({ path, name }: { path: Buffer; name: string }): Promise<void> => {
    const stat = await lstat(path, { bigint: true });
    found.set(name, await describe(path, stat).catch((error: unknown) => `unreadable: ${String(error)}`));
    if (!stat.isDirectory()) return;
    for (const entry of await readdir(path, { encoding: 'buffer' })) {
      const below = Buffer.concat([path, Buffer.from('/'), entry]);
      waiting.push({
        path: below,
        name: name === '.' ? entry.toString('latin1') : `${name}/${entry.toString('latin1')}`,
      });
    }
  };
  const active = new Set<Promise<void>>();
  while (waiting.length > 0 || active.size > 0) {
    const next = active.size < PARALLEL ? waiting.pop() : undefined;
    if (!next) {
      await Promise.race(active);
      continue;
    }
    const work = visit(next).finally(() => active.delete(work));
    active.add(work);
  }
  return found;
}

/** Walks `top` in a process of its own, with a deadline (10 minutes unless told). */
export async function fingerprint(run: Run, top: string, timeoutMs = 600_000): Promise<Fingerprint> {
  const output = await run.must(process.execPath, [import.meta.filename, top], { timeoutMs });
  return new Map(JSON.parse(output) as [string, string][]);
}

/** What differs, at most 20 lines; empty when both are the same. */
export function differences(wanted: Fingerprint, found: Fingerprint): string[] {
  const lines: string[] = [];
  for (const [path, line] of wanted) {
    const other = found.get(path);
    if (other !== line) lines.push(`${JSON.stringify(path)}: wanted ${line}, found ${other ?? 'nothing'}`);
  }
  for (const path of found.keys()) if (!wanted.has(path)) lines.push(`${JSON.stringify(path)}: not wanted`);
  return lines.length > 20 ? [...lines.slice(0, 20), `and ${lines.length - 20} more`] : lines;
}

if (process.argv[1] === import.meta.filename) {
  const top = process.argv[2];
  if (!top) throw new TypeError('usage: fingerprint.ts DIR');
  process.stdout.write(JSON.stringify([...(await fingerprintHere(top))]));
}
