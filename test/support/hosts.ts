// What a host has on its disk, seen from outside.

import { closeSync, fstatSync, openSync, readFileSync, readSync, readdirSync, statSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { verifyShard } from '../../src/crypto/merkle.ts';

const LEAF_BYTES = 16_384;

/** Paths of all regular files below `dir`; what vanishes in the meantime is left out. */
export function filesBelow(dir: string): string[] {
  const found: string[] = [];
  const visit = (at: string): void => {
    for (const entry of readdirSync(at, { withFileTypes: true })) {
      const path = join(at, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) found.push(path);
    }
  };
  visit(dir);
  return found;
}

/** Paths of the shards that a host keeps below `dir`: files named by a shard id, 64 hex digits. */
export function shardFiles(dir: string): string[] {
  return filesBelow(dir).filter((path) => /(^|\/)[0-9a-f]{64}$/.test(path));
}

/** Ids (hex) of the shards below `dir` whose bytes are theirs. */
export function intactShards(dir: string): string[] {
  return shardFiles(dir).flatMap((path) => {
    const name = basename(path);
    try {
      return verifyShard(Buffer.from(name, 'hex'), readFileSync(path)) ? [name] : [];
    } catch {
      return []; // deleted in the meantime
    }
  });
}

/** Counts intact mirrors again and again, and reads again only what has changed. */
export class ShardCounts {
  readonly #known = new Map<string, boolean>();

  /** How many of these hosts hold each shard (hex) intact; 0 where it is only there in part or rotten. */
  of(hosts: Iterable<{ readonly dir: string }>): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { dir } of hosts) {
      for (const path of shardFiles(dir)) {
        const id = basename(path);
        counts.set(id, (counts.get(id) ?? 0) + (this.#isIntact(path) ? 1 : 0));
      }
    }
    return counts;
  }

  #isIntact(path: string): boolean {
    try {
      const { ino, size, mtimeNs } = statSync(path, { bigint: true });
      const version = `${path} ${ino} ${size} ${mtimeNs}`;
      const known =
        this.#known.get(version) ?? verifyShard(Buffer.from(basename(path), 'hex'), readFileSync(path)) !== null;
      this.#known.set(version, known);
      return known;
    } catch {
      return false; // deleted in the meantime
    }
  }
}

/** Flips one bit in every leaf of every shard below `dir` that is chosen, in place; returns how many shards. */
export function corruptShards(dir: string, isChosen: (path: string) => boolean = () => true): number {
  let corrupted = 0;
  const byte = Buffer.alloc(1);
  for (const path of shardFiles(dir).filter(isChosen)) {
    const fd = openIfThere(path);
    if (fd === undefined) continue;
    corrupted += 1;
    try {
      const { size } = fstatSync(fd);
      for (let leaf = 0; leaf < size; leaf += LEAF_BYTES) {
        const offset = Math.min(leaf + 100, size - 1);
        readSync(fd, byte, 0, 1, offset);
        byte[0] = (byte[0] ?? 0) ^ 0x10;
        writeSync(fd, byte, 0, 1, offset);
      }
    } finally {
      closeSync(fd);
    }
  }
  return corrupted;
}

/** Undefined for a file that was deleted in the meantime. */
function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r+');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
