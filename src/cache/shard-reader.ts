// Plaintext of any shard, wherever its bytes are: in an open segment, decrypted in memory, in a
// local file, or on a host. Every leaf that does not come from our own memory is verified.

import { LRUCache } from 'lru-cache';
import { ctrAt } from '../crypto/ctr.ts';
import { shardKey } from '../crypto/keys.ts';
import { HASH_SIZE_BYTES, LEAF_SIZE_BYTES, leafCountOf, leafHash, leafHashes, shardIdOf } from '../crypto/merkle.ts';
import type { DiskFile } from '../lib/disk.ts';
import { ERRNO, errnoOf, hasCode, XcoreError } from '../lib/errors.ts';
import { freeBuffer } from '../lib/free-buffer.ts';
import type { Logger } from '../lib/log.ts';
import { fileSizeOf } from './shard-files.ts';
import type { ShardFiles } from './shard-files.ts';
import type { Segments } from './segments.ts';
import type { ShardEntry, ShardTable } from './shard-table.ts';

/** Decrypted leaves kept in memory. */
const MEMORY_BYTES = 8 * 1024 * 1024;
/** With the leaf hashes of each, 4 KiB. */
const OPEN_FILES = 512;
const KEYS = 1_024;
/** Longer reads are sequential: the kernel keeps what they bring. */
const KEPT_LEAVES = 8;
/** A random read from the network fetches this many leaves. */
const RANGE_LEAVES = 4;
/** Shards of which a second random read fetches the whole. */
const REMEMBERED_RANGES = 1_024;
const LEAVES_PER_SHARD = 128;
/** Tries to read from the local cache, which may evict in between, before leaves are fetched by themselves. */
const LOCAL_ATTEMPTS = 3;

/** Where shards come from that are not here; what it returns is verified. */
export interface ShardFetcher {
  /** Writes a shard and its leaf hashes to `path`, whole or not at all. */
  fetchShard(id: Uint8Array, sizeBytes: number, path: string, signal?: AbortSignal): Promise<void>;
  /** Bytes of the leaves, which the caller owns. */
  fetchLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array>;
}

/** What a reader is built from. */
export interface ReaderComponents {
  readonly table: ShardTable;
  readonly files: ShardFiles;
  readonly segments: Segments;
  readonly fetcher: ShardFetcher;
  readonly dataKey: Buffer;
  readonly log: Logger;
  /** Local bytes of a shard are damaged; `lost` when no host has them. */
  readonly onDamaged: (shard: number, lost: boolean) => void;
}

/** A local file that is ready to be read: its leaf hashes are checked against the shard id. */
interface OpenShard {
  readonly file: DiskFile;
  readonly leaves: Buffer;
}

/** Reads ranges of shards; one fetch for each shard, however many wait for it. */
export class ShardReader {
  readonly #c: ReaderComponents;
  readonly #memory = new LRUCache<number, Buffer>({
    maxSize: MEMORY_BYTES,
    sizeCalculation: (leaf) => leaf.length,
  });
  readonly #files = new LRUCache<number, Promise<OpenShard>>({
    max: OPEN_FILES,
    // close() waits for reads under way
    dispose: (opened) => void opened.then(({ file }) => file.close()).catch(() => undefined),
  });
  readonly #keys = new LRUCache<number, Buffer>({ max: KEYS });
  readonly #ranges = new LRUCache<number, true>({ max: REMEMBERED_RANGES });
  readonly #fetches = new Map<number, Promise<void>>();

  constructor(components: ReaderComponents) {
    this.#c = components;
    components.files.setDropListener((shard) => this.#files.delete(shard));
  }

  /** Fetches of whole shards that are under way. */
  get fetching(): number {
    return this.#fetches.size;
  }

  /** At once when the bytes are in memory. `whole`: what is read here is likely read on. */
  read(
    shard: number,
    offset: number,
    lengthBytes: number,
    whole: boolean,
    signal?: AbortSignal,
  ): Buffer[] | Promise<Buffer[]> {
    const open = this.#c.segments.read(shard, offset, lengthBytes);
    if (open !== null) return [open];
    const first = Math.floor(offset / LEAF_SIZE_BYTES);
    const last = Math.floor((offset + lengthBytes - 1) / LEAF_SIZE_BYTES);
    const leaves: Buffer[] = [];
    for (let leaf = first; leaf <= last; leaf++) {
      const bytes = this.#memory.get(shard * LEAVES_PER_SHARD + leaf);
      if (bytes === undefined) return this.#load(shard, first, last, offset, lengthBytes, whole, signal);
      leaves.push(bytes);
    }
    // of a shard whose end was lost, the last leaf that is left is short: what is behind it is an error
    const end = last * LEAF_SIZE_BYTES + (leaves.at(-1)?.length ?? 0);
    if (offset + lengthBytes > end) return this.#load(shard, first, last, offset, lengthBytes, whole, signal);
    return cutOut(leaves, offset - first * LEAF_SIZE_BYTES, lengthBytes);
  }

  async #load(
    shard: number,
    first: number,
    last: number,
    offset: number,
    lengthBytes: number,
    whole: boolean,
    signal?: AbortSignal,
  ): Promise<Buffer[]> {
    const entry = this.#c.table.requireShard(shard);
    if (offset + lengthBytes > entry.sizeBytes) throw new XcoreError('EIO', `bytes of shard ${shard} were lost`);
    const local = await this.#ciphertext(shard, entry, first, last, whole, signal);
    const plain = ctrAt(this.#keyOf(shard, entry), local.first * LEAF_SIZE_BYTES, local.bytes);
    freeBuffer(local.bytes);
    this.#remember(shard, local.first, plain);
    const start = offset - local.first * LEAF_SIZE_BYTES;
    return [plain.subarray(start, start + lengthBytes)];
  }

  /** Keeps decrypted leaves; of a long read only those at its ends, which its neighbours need again. */
  #remember(shard: number, first: number, plain: Buffer): void {
    const count = Math.ceil(plain.length / LEAF_SIZE_BYTES);
    const step = count > KEPT_LEAVES ? count - 1 : 1;
    for (let leaf = 0; leaf < count; leaf += step) {
      const bytes = plain.subarray(leaf * LEAF_SIZE_BYTES, (leaf + 1) * LEAF_SIZE_BYTES);
      this.#memory.set(shard * LEAVES_PER_SHARD + first + leaf, count === 1 ? bytes : ownCopy(bytes));
    }
  }

  /** Verified ciphertext of at least leaves first to last. A local cache that fails is a miss. */
  async #ciphertext(
    shard: number,
    entry: ShardEntry,
    first: number,
    last: number,
    whole: boolean,
    signal?: AbortSignal,
  ): Promise<{ first: number; bytes: Uint8Array }> {
    for (let attempt = 0; attempt < LOCAL_ATTEMPTS; attempt++) {
      const bytes = this.#c.files.has(shard) ? await this.#tryLocal(shard, entry, first, last) : null;
      if (bytes !== null) return { first, bytes };
      if (entry.id.length === 0) throw new XcoreError('EIO', `shard ${shard} was never completed`);
      if (!whole && !this.#ranges.has(shard) && !this.#fetches.has(shard)) break;
      if (!(await abortable(this.#keep(shard), signal))) break;
    }
    this.#ranges.set(shard, true);
    const from = first - (first % RANGE_LEAVES);
    const to = Math.min(leafCountOf(entry.sizeBytes), Math.max(last + 1, from + RANGE_LEAVES));
    const bytes = await this.#c.fetcher.fetchLeaves(entry.id, entry.sizeBytes, from, to - from, signal);
    return { first: from, bytes };
  }

  /** As prefetch(); false when the local disk has no place for the shard. */
  async #keep(shard: number): Promise<boolean> {
    try {
      await this.prefetch(shard);
      return true;
    } catch (error) {
      if (error instanceof XcoreError && error.code !== 'ENOSPC' && error.code !== 'INTERNAL') throw error;
      this.#c.log.debug({ shard, error }, 'a shard cannot be kept');
      return false;
    }
  }

  /** Verified bytes of the local file; null when it does not give them and hosts may. */
  async #tryLocal(shard: number, entry: ShardEntry, first: number, last: number): Promise<Buffer | null> {
    try {
      return await this.#readLocal(shard, entry, first, last);
    } catch (error) {
      if (!this.#c.files.has(shard)) return null; // evicted in the meantime
      const lost = this.#c.table.isStaged(shard);
      if (hasCode(error, 'CORRUPT_SHARD')) {
        this.#c.onDamaged(shard, lost);
        this.#files.delete(shard);
        if (!lost) await this.#c.files.drop(shard);
      }
      if (lost) throw error;
      this.#c.log.warn({ shard, error }, 'a cached shard could not be read');
      return null;
    }
  }

  /** Fetches a whole shard into the local cache unless it is here. */
  prefetch(shard: number): Promise<void> {
    const running = this.#fetches.get(shard);
    if (running !== undefined) return running;
    if (this.#c.files.has(shard)) return Promise.resolve();
    const fetch = this.#fetch(shard).finally(() => this.#fetches.delete(shard));
    this.#fetches.set(shard, fetch);
    return fetch;
  }

  async #fetch(shard: number): Promise<void> {
    const entry = this.#c.table.requireShard(shard);
    const { id, sizeBytes } = entry;
    const fileBytes = fileSizeOf(sizeBytes);
    await this.#c.files.reserve(fileBytes);
    try {
      const path = await this.#c.files.prepare(shard);
      await this.#c.fetcher.fetchShard(id, sizeBytes, path);
      this.#c.files.add(shard, fileBytes, false);
    } finally {
      this.#c.files.release(fileBytes);
    }
  }

  #keyOf(shard: number, entry: ShardEntry): Buffer {
    let key = this.#keys.get(shard);
    if (key === undefined) {
      key = shardKey(this.#c.dataKey, entry.salt);
      this.#keys.set(shard, key);
    }
    return key;
  }

  async #readLocal(shard: number, entry: ShardEntry, first: number, last: number): Promise<Buffer> {
    this.#c.files.touch(shard);
    let opened = this.#files.get(shard);
    if (opened === undefined) {
      opened = this.#openLocal(shard, entry);
      this.#files.set(shard, opened);
      opened.catch(() => this.#files.delete(shard));
    }
    const { file, leaves } = await opened;
    const start = first * LEAF_SIZE_BYTES;
    const bytes = Buffer.allocUnsafeSlow(Math.min((last + 1) * LEAF_SIZE_BYTES, entry.sizeBytes) - start);
    await readFully(file, bytes, start);
    for (let leaf = first; leaf <= last; leaf++) {
      const at = (leaf - first) * LEAF_SIZE_BYTES;
      const hash = leafHash(bytes.subarray(at, at + LEAF_SIZE_BYTES));
      const wanted = leaves.subarray(leaf * HASH_SIZE_BYTES, (leaf + 1) * HASH_SIZE_BYTES);
      if (!hash.equals(wanted)) throw new XcoreError('CORRUPT_SHARD', `local bytes of shard ${shard} are damaged`);
    }
    return bytes;
  }

  async #openLocal(shard: number, entry: ShardEntry): Promise<OpenShard> {
    let file: DiskFile;
    try {
      file = await this.#c.files.disk.open(this.#c.files.path(shard), 'r');
    } catch (error) {
      if (errnoOf(error) !== ERRNO.ENOENT) throw error;
      throw new XcoreError('CORRUPT_SHARD', `the local file of shard ${shard} is gone`, { cause: error });
    }
    try {
      const leaves = Buffer.alloc(leafCountOf(entry.sizeBytes) * HASH_SIZE_BYTES);
      const { bytesRead } = await file.read(leaves, 0, leaves.length, entry.sizeBytes);
      if (bytesRead === leaves.length && shardIdOf(leaves, entry.sizeBytes).equals(entry.id)) return { file, leaves };
      // the leaf hashes were not written or are damaged; the bytes may still be right
      const bytes = Buffer.allocUnsafe(entry.sizeBytes);
      await readFully(file, bytes, 0);
      const computed = leafHashes(bytes);
      if (shardIdOf(computed, entry.sizeBytes).equals(entry.id)) return { file, leaves: computed };
      throw new XcoreError('CORRUPT_SHARD', `the local file of shard ${shard} does not match its id`);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Forgets a shard that is freed. */
  forget(shard: number): void {
    this.#files.delete(shard);
    this.#keys.delete(shard);
    for (let leaf = 0; leaf < LEAVES_PER_SHARD; leaf++) this.#memory.delete(shard * LEAVES_PER_SHARD + leaf);
  }

  /** Waits for transfers under way and closes all files. */
  async stop(): Promise<void> {
    await Promise.allSettled(this.#fetches.values());
    const opened = await Promise.allSettled(this.#files.values());
    for (const result of opened) if (result.status === 'fulfilled') await result.value.file.close();
    this.#memory.clear();
  }
}

/** A copy with memory of its own: a part of a larger buffer, or of Node's pool, would keep all of that. */
function ownCopy(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}

async function readFully(file: DiskFile, buffer: Buffer, position: number): Promise<void> {
  for (let done = 0; done < buffer.length;) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done);
    if (bytesRead === 0) throw new XcoreError('CORRUPT_SHARD', 'a local shard file is too short');
    done += bytesRead;
  }
}

/** Parts of [start, start + lengthBytes) of leaves that follow each other. */
function cutOut(leaves: readonly Buffer[], start: number, lengthBytes: number): Buffer[] {
  const parts: Buffer[] = [];
  let position = 0;
  for (const leaf of leaves) {
    const from = Math.max(0, start - position);
    const to = Math.min(leaf.length, start + lengthBytes - position);
    if (to > from) parts.push(leaf.subarray(from, to));
    position += leaf.length;
  }
  return parts;
}

/** A promise that also ends when a signal aborts. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(new XcoreError('EINTR', 'the read was interrupted'));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
