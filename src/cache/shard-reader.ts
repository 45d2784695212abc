// Plaintext of any shard, wherever its bytes are: in an open segment, decrypted in memory, in a
// local file, or on a host. Every leaf that does not come from our own memory is verified.

import { LRUCache } from 'lru-cache';
import { ctrInto } from '../crypto/ctr.ts';
import { shardKey } from '../crypto/keys.ts';
import { LEAF_SIZE_BYTES, MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import { freeBuffer, markToSend, takeToSend } from '../lib/free-buffer.ts';
import type { Logger } from '../lib/log.ts';
import { abortable } from './abortable.ts';
import { ArrivedShards } from './arrived-shards.ts';
import { LeafCache } from './leaf-cache.ts';
import { LocalShards } from './local-shards.ts';
import { LEAVES_PER_SHARD, RemoteShards } from './remote-shards.ts';
import type { RemoteShardsComponents } from './remote-shards.ts';
import type { Segments } from './segments.ts';
import { ShardLoads } from './shard-loads.ts';
import type { ShardLoadsComponents } from './shard-loads.ts';
import type { ShardEntry } from './shard-table.ts';

/** Decrypted leaves kept in memory. */
const MEMORY_BYTES = 8 * 1024 * 1024;
const KEYS = 1_024;
/** Bytes of one read from which on its memory is worth giving back by hand. */
const LARGE_READ_BYTES = 64 * 1024;
/** And from which on it is worth keeping for the next one, up to 1 MiB. */
const REUSED_FROM_BYTES = 256 * 1024;
const REUSED_UP_TO_BYTES = 1024 * 1024;
/** Where a sequential reader comes to so much of a shard, all of it is loaded ahead. */
const LOAD_BYTES = 1_572_864;
/** Tries to read from the local cache, which may evict in between, before leaves are fetched by themselves. */
const LOCAL_ATTEMPTS = 3;

/** What a reader is built from. */
export interface ReaderComponents extends ShardLoadsComponents, RemoteShardsComponents {
  readonly segments: Segments;
  readonly dataKey: Buffer;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly log: Logger;
  /** Local bytes of a shard are damaged; `lost` when no host has them. */
  readonly onDamaged: (shard: number, lost: boolean) => void;
}

/** Reads ranges of shards; one fetch for each shard, however many wait for it. */
export class ShardReader {
  readonly #c: ReaderComponents;
  readonly #memory = new LeafCache(MEMORY_BYTES);
  readonly #local: LocalShards;
  readonly #keys = new LRUCache<number, Buffer>({ max: KEYS });
  readonly #arrived: ArrivedShards;
  readonly #loads: ShardLoads;
  readonly #remote: RemoteShards;

  constructor(components: ReaderComponents) {
    this.#c = components;
    this.#local = new LocalShards(components.files);
    this.#arrived = new ArrivedShards(components.clock);
    this.#loads = new ShardLoads(components, this.#arrived);
    this.#remote = new RemoteShards(components, this.#arrived, (shard, entry) => this.#keyOf(shard, entry));
    components.files.setDropListener((shard) => this.#local.forget(shard));
  }

  /** Whether anything comes from the network for a reader. */
  get isFetching(): boolean {
    return this.#remote.isFetching;
  }

  /** Fetches of whole shards that are under way. */
  get fetching(): number {
    return this.#remote.fetching;
  }

  /** At once when the bytes are in memory. `whole`: what is read here is likely read on. The bytes are the caller's. */
  read(
    shard: number,
    offset: number,
    lengthBytes: number,
    whole: boolean,
    signal?: AbortSignal,
  ): Buffer | Promise<Buffer> {
    const isReused = lengthBytes >= REUSED_FROM_BYTES && lengthBytes <= REUSED_UP_TO_BYTES;
    const target = isReused ? takeToSend(lengthBytes) : Buffer.allocUnsafeSlow(lengthBytes);
    if (!isReused && lengthBytes >= LARGE_READ_BYTES) markToSend(target);
    return this.readNow(shard, offset, target, whole) ? target : this.#load(shard, offset, target, whole, signal);
  }

  /** Fills `target` without any wait; false, with anything in it, when not all bytes are in this machine's memory. */
  readNow(shard: number, offset: number, target: Buffer, whole: boolean): boolean {
    if (this.#c.segments.read(shard, offset, target)) return true;
    if (this.#readArrived(shard, offset, target)) return true;
    // what is on its way to memory need not be checked twice
    if (whole && this.#loads.of(shard)) return false;
    const last = Math.floor((offset + target.length - 1) / LEAF_SIZE_BYTES);
    let first = Math.floor(offset / LEAF_SIZE_BYTES);
    for (; first <= last; first++) {
      const bytes = this.#memory.get(shard * LEAVES_PER_SHARD + first);
      if (bytes === null) break;
      // of a shard whose end was lost, the last leaf that is left is short: what is behind it is an error
      if (offset + target.length > first * LEAF_SIZE_BYTES + bytes.length && bytes.length < LEAF_SIZE_BYTES)
        return false;
      copyLeaf(first, bytes, offset, target);
      this.#remote.used(shard * LEAVES_PER_SHARD + first);
    }
    if (first > last) return true;
    const from = Math.max(offset, first * LEAF_SIZE_BYTES);
    const key = this.#keys.get(shard);
    if (key === undefined) return false;
    const bytes = this.#local.readNow(shard, from, offset + target.length);
    if (bytes !== null) this.#decrypt(shard, key, { first, bytes, keep: whole }, offset, target);
    return bytes !== null;
  }

  /** As LocalShards.soon(), for a part of a shard that readNow() did not fill. */
  soon(shard: number, offset: number, lengthBytes: number): Promise<boolean> | null {
    return this.#keys.has(shard) ? this.#local.soon(shard, offset, offset + lengthBytes) : null;
  }

  /** Fills `target` from a shard that came from the network lately. */
  #readArrived(shard: number, offset: number, target: Buffer): boolean {
    const key = this.#keys.get(shard);
    const bytes = key && this.#arrived.read(shard, offset, offset + target.length);
    if (key === undefined || bytes === undefined) return false;
    ctrInto(key, offset, bytes, target);
    this.#c.files.touch(shard);
    return true;
  }

  /** Decrypts what `target`, which begins at `offset` of the shard, wants of leaves; keeps a leaf that its neighbours need again. */
  #decrypt(
    shard: number,
    key: Buffer,
    { first, bytes, keep }: { first: number; bytes: Uint8Array; keep: boolean },
    offset: number,
    target: Buffer,
  ): void {
    const start = first * LEAF_SIZE_BYTES;
    const end = start + bytes.length;
    let from = Math.max(offset, start);
    let to = Math.min(offset + target.length, end);
    if (keep) {
      from = Math.ceil(from / LEAF_SIZE_BYTES) * LEAF_SIZE_BYTES;
      if (to < end) to = Math.floor(to / LEAF_SIZE_BYTES) * LEAF_SIZE_BYTES;
      for (let at = start; at < end; at += LEAF_SIZE_BYTES) {
        if (at >= from && at < to) continue;
        const ciphertext = bytes.subarray(at - start, at - start + LEAF_SIZE_BYTES);
        const plain = this.#memory.put(shard * LEAVES_PER_SHARD + at / LEAF_SIZE_BYTES, ciphertext.length);
        ctrInto(key, at, ciphertext, plain);
        copyLeaf(at / LEAF_SIZE_BYTES, plain, offset, target);
      }
    }
    if (to > from) {
      ctrInto(key, from, bytes.subarray(from - start, to - start), target.subarray(from - offset, to - offset));
    }
  }

  async #load(shard: number, offset: number, target: Buffer, whole: boolean, signal?: AbortSignal): Promise<Buffer> {
    const entry = this.#c.table.requireShard(shard);
    if (offset + target.length > entry.sizeBytes) throw new XcoreError('EIO', `bytes of shard ${shard} were lost`);
    this.#keyOf(shard, entry);
    const first = Math.floor(offset / LEAF_SIZE_BYTES);
    const last = Math.floor((offset + target.length - 1) / LEAF_SIZE_BYTES);
    const load = whole ? this.#loads.of(shard) : undefined;
    if (load !== undefined) await abortable(load, signal);
    for (let attempt = 0; attempt < LOCAL_ATTEMPTS; attempt++) {
      // no turn of the event loop may come between finding it and reading it
      if (this.#readArrived(shard, offset, target)) return target;
      const bytes = this.#c.files.has(shard) ? await this.#tryLocal(shard, entry, first, last) : null;
      if (bytes !== null) return this.#decryptAll(shard, entry, { first, bytes, keep: whole }, offset, target);
      if (entry.id.length === 0) throw new XcoreError('EIO', `shard ${shard} was never completed`);
      if (this.#c.table.isLost(shard)) await this.#assertKnown(shard, entry);
      if (!whole && !this.#remote.isComing(shard)) break;
      if (!(await abortable(this.#keep(shard), signal))) break;
    }
    const leaves = await this.#remote.leaves(shard, entry, first, last, signal);
    return this.#decryptAll(shard, entry, { ...leaves, keep: true }, offset, target);
  }

  /** Decrypts what `target` wants of verified leaves, whose memory it then frees. */
  #decryptAll(
    shard: number,
    entry: ShardEntry,
    leaves: { readonly first: number; readonly bytes: Uint8Array; readonly keep: boolean },
    offset: number,
    target: Buffer,
  ): Buffer {
    this.#decrypt(shard, this.#keyOf(shard, entry), leaves, offset, target);
    freeBuffer(leaves.bytes);
    return target;
  }

  /** EIO at once for a shard that is lost here, and that no host is known to have: there is nothing to be waited for. */
  async #assertKnown(shard: number, { id }: ShardEntry): Promise<void> {
    const mirrors = await this.#c.fetcher.mirrors(id).catch(() => 0);
    if (mirrors > 0) return this.#c.files.drop(shard);
    this.#c.onDamaged(shard, true);
    throw new XcoreError('EIO', `bytes of shard ${shard}, which only this machine had, are lost`);
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
      return await this.#local.read(shard, entry, first, last);
    } catch (error) {
      if (!this.#c.files.has(shard)) return null; // evicted in the meantime
      const isOnly = this.#c.table.isStaged(shard);
      if (hasCode(error, 'CORRUPT_SHARD')) {
        this.#local.forget(shard);
        // its other leaves may be all that is left
        if (this.#c.table.isLost(shard)) return null;
        this.#c.onDamaged(shard, isOnly);
        if (!isOnly) await this.#c.files.drop(shard);
      }
      if (isOnly) throw error;
      this.#c.log.warn({ shard, error }, 'a cached shard could not be read');
      return null;
    }
  }

  /** Fetches a whole shard into the local cache unless it is here. */
  prefetch(shard: number): Promise<void> {
    return this.#remote.prefetch(shard);
  }

  /** Has a shard fetched in its turn, a few at a time, unless it is here. */
  want(shard: number): void {
    this.#remote.want(shard);
  }

  #keyOf(shard: number, entry: ShardEntry): Buffer {
    let key = this.#keys.get(shard);
    if (key === undefined) {
      key = shardKey(this.#c.dataKey, entry.salt);
      this.#keys.set(shard, key);
    }
    return key;
  }

  /**
   * Loads the local file of a shard for a sequential reader that comes to `lengthBytes` of it after `aheadBytes` more; false
   * where that is not worth it, or too early to take memory for it.
   */
  load(shard: number, lengthBytes: number, aheadBytes: number): boolean {
    const entry = this.#c.table.shard(shard);
    if (entry === undefined || entry.id.length === 0 || !this.#c.files.has(shard)) return false;
    if (this.#arrived.has(shard) || this.#loads.of(shard)) return true;
    this.#keyOf(shard, entry);
    if (lengthBytes < LOAD_BYTES || aheadBytes > this.#arrived.spare * MAX_SHARD_SIZE_BYTES) return false;
    return this.#loads.begin(shard, entry);
  }

  /** As load(), of what is near; at least it has the file open and in the kernel's memory. */
  warm(shard: number, lengthBytes: number, aheadBytes: number): void {
    const entry = this.#c.table.shard(shard);
    if (entry === undefined || entry.id.length === 0 || this.load(shard, lengthBytes, aheadBytes)) return;
    this.#local.warm(shard, entry).catch(() => undefined);
  }

  /** Forgets a shard that is freed. */
  forget(shard: number): void {
    this.#remote.forget(shard);
    this.#arrived.forget(shard);
    this.#local.forget(shard);
    this.#keys.delete(shard);
    for (let leaf = 0; leaf < LEAVES_PER_SHARD; leaf++) this.#memory.delete(shard * LEAVES_PER_SHARD + leaf);
  }

  /** Waits for transfers under way and closes all files. */
  async stop(): Promise<void> {
    await this.#remote.stop();
    await this.#loads.stop();
    await this.#local.stop();
    this.#memory.clear();
  }
}

/** Copies what `target`, which begins at `offset` of the shard, wants of a leaf. */
function copyLeaf(leaf: number, bytes: Buffer, offset: number, target: Buffer): void {
  const start = leaf * LEAF_SIZE_BYTES;
  const from = Math.max(offset, start);
  const to = Math.min(offset + target.length, start + bytes.length);
  if (to > from) bytes.copy(target, from - offset, from - start, to - start);
}
