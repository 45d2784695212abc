// Where shards lie: shards/ab/<64 hex digits>, and temporary files apart from them. The only place
// that makes paths, and it makes them from ids of 32 bytes only.

import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { HostFs } from './host-fs.ts';

const FOLDER_NAME = /^[0-9a-f]{2}$/;
const SHARD_NAME = /^[0-9a-f]{64}$/;
const TEMPORARY_NAME = /^[0-9a-f]{32}\.tmp$/;
/** Files looked at side by side while the inventory is taken. */
const PARALLEL_STATS = 32;
const MAX_NAMED_FOREIGNERS = 10;

/** What the inventory found. */
export interface Inventory {
  readonly shards: number;
  readonly bytes: number;
  /** Files that are not ours; they are left alone and not counted. */
  readonly foreign: number;
}

/** The folder of a host's shards. */
export class ShardFiles {
  readonly #fs: HostFs;
  readonly #log: Logger;
  readonly #dir: string;
  readonly #shardsDir: string;
  readonly #temporaryDir: string;
  /** Two-digit folders that exist durably, at most 256. */
  readonly #folders = new Set<string>();

  constructor(components: { readonly fs: HostFs; readonly log: Logger }, dir: string) {
    this.#fs = components.fs;
    this.#log = components.log;
    this.#dir = dir;
    this.#shardsDir = join(dir, 'shards');
    this.#temporaryDir = join(dir, 'incoming');
  }

  /** Makes the folders and removes what a crash left half-written. */
  async prepare(): Promise<void> {
    await this.#fs.mkdir(this.#shardsDir, { recursive: true, mode: 0o700 });
    await this.#fs.mkdir(this.#temporaryDir, { recursive: true, mode: 0o700 });
    // Or a power cut could take the folder from under shards that are synced.
    await this.#sync(this.#dir);
    for (const name of await this.#fs.readdir(this.#temporaryDir)) {
      if (TEMPORARY_NAME.test(name)) await this.#fs.unlink(join(this.#temporaryDir, name));
    }
  }

  /** Counts what is stored. */
  async takeInventory(): Promise<Inventory> {
    let [shards, bytes, foreign] = [0, 0, 0];
    const noteForeign = (name: string): void => {
      foreign += 1;
      if (foreign <= MAX_NAMED_FOREIGNERS) this.#log.warn({ name }, 'not a shard; left alone');
    };
    for (const folder of await this.#fs.readdir(this.#shardsDir, { withFileTypes: true })) {
      if (!folder.isDirectory() || !FOLDER_NAME.test(folder.name)) {
        noteForeign(folder.name);
        continue;
      }
      const path = join(this.#shardsDir, folder.name);
      const names = await this.#fs.readdir(path);
      for (let at = 0; at < names.length; at += PARALLEL_STATS) {
        const some = names.slice(at, at + PARALLEL_STATS);
        const sizes = await Promise.all(some.map((name) => this.#shardSize(path, folder.name, name)));
        sizes.forEach((size, index) => {
          if (size === null) noteForeign(join(folder.name, some[index]!));
          else [shards, bytes] = [shards + 1, bytes + size];
        });
      }
    }
    return { shards, bytes, foreign };
  }

  /** Ids of stored shards above `after` (empty: all), ascending, at most `limit`; one folder's names are in memory at a time. */
  async list(after: Uint8Array, limit: number): Promise<Uint8Array[]> {
    const bound = Buffer.from(after).toString('hex');
    const found: Uint8Array[] = [];
    const folders = (await this.#fs.readdir(this.#shardsDir)).filter((name) => FOLDER_NAME.test(name)).sort();
    for (const folder of folders) {
      if (folder < bound.slice(0, 2)) continue;
      const names = (await this.#fs.readdir(join(this.#shardsDir, folder))).filter(
        (name) => SHARD_NAME.test(name) && name.startsWith(folder) && name > bound,
      );
      for (const name of names.sort()) {
        if (found.length >= limit) return found;
        found.push(Buffer.from(name, 'hex'));
      }
    }
    return found;
  }

  /** The size of a stored shard, or null. */
  async sizeOf(id: Uint8Array): Promise<number | null> {
    try {
      const stats = await this.#fs.stat(this.pathOf(id));
      return stats.isFile() ? stats.size : null;
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null;
      throw error;
    }
  }

  /** The path of a shard; PROTOCOL unless the id has 32 bytes. */
  pathOf(id: Uint8Array): string {
    const name = nameOf(id);
    return join(this.#shardsDir, name.slice(0, 2), name);
  }

  /** A fresh path for bytes that are still to be checked. */
  temporaryPath(): string {
    return join(this.#temporaryDir, `${randomBytes(16).toString('hex')}.tmp`);
  }

  /** Makes a temporary file, and its folder where somebody has removed it. */
  async openTemporary(path: string): ReturnType<HostFs['open']> {
    try {
      return await this.#fs.open(path, 'wx', 0o600);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      await this.#fs.mkdir(this.#temporaryDir, { recursive: true, mode: 0o700 });
      return await this.#fs.open(path, 'wx', 0o600);
    }
  }

  /** Gives a complete, synced temporary file its name, which a power cut may undo until sync(). */
  async name(temporaryPath: string, id: Uint8Array): Promise<void> {
    const folder = nameOf(id).slice(0, 2);
    await this.#makeFolder(folder);
    try {
      await this.#fs.rename(temporaryPath, this.pathOf(id));
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      // somebody has removed the folder
      this.#folders.delete(folder);
      await this.#makeFolder(folder);
      await this.#fs.rename(temporaryPath, this.pathOf(id));
    }
  }

  /** Makes the name of a shard durable. */
  sync(id: Uint8Array): Promise<void> {
    return this.#sync(dirname(this.pathOf(id)));
  }

  async #makeFolder(name: string): Promise<void> {
    if (this.#folders.has(name)) return;
    await this.#fs.mkdir(join(this.#shardsDir, name), { recursive: true, mode: 0o700 });
    await this.#sync(this.#shardsDir);
    this.#folders.add(name);
  }

  /** Removes a shard; whether there was one. */
  async remove(id: Uint8Array): Promise<boolean> {
    try {
      await this.#fs.unlink(this.pathOf(id));
      return true;
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  /** Makes removals durable. */
  async syncFolders(ids: readonly Uint8Array[]): Promise<void> {
    for (const path of new Set(ids.map((id) => dirname(this.pathOf(id))))) {
      await this.#sync(path).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error;
      });
    }
  }

  async #shardSize(path: string, folder: string, name: string): Promise<number | null> {
    if (!SHARD_NAME.test(name) || !name.startsWith(folder)) return null;
    const stats = await this.#fs.stat(join(path, name));
    return stats.isFile() && stats.size >= 1 && stats.size <= MAX_SHARD_SIZE_BYTES ? stats.size : null;
  }

  async #sync(path: string): Promise<void> {
    const folder = await this.#fs.open(path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

function nameOf(id: Uint8Array): string {
  if (id.length !== 32) throw new XcoreError('PROTOCOL', 'a shard id has 32 bytes');
  return Buffer.from(id).toString('hex');
}

/** The errno name of a system error, or an empty text. */
export function codeOf(error: unknown): string {
  return (asError(error) as NodeJS.ErrnoException).code ?? '';
}
