// Stores, reads and removes shards: complete, checked and durable, or not at all. Knows no orders and no peers.

import { LRUCache } from 'lru-cache';
import { LEAF_SIZE_BYTES, leafHashes, merkleTree, proofOf, shardIdOfTree } from '../crypto/merkle.ts';
import type { MerkleTree } from '../crypto/merkle.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import { markToSend } from '../lib/free-buffer.ts';
import { levelFailure } from '../lib/level-failure.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Logger } from '../lib/log.ts';
import { DiskPatience } from '../lib/resident-read.ts';
import type { HostFs } from './host-fs.ts';
import { LeafHasher } from './leaf-hasher.ts';
import { OpenShards, residentBytes } from './open-shards.ts';
import type { OpenShard } from './open-shards.ts';
import { codeOf, ShardFiles } from './shard-files.ts';
import { readExactly } from './shard-reads.ts';
import { SpaceBudget } from './space-budget.ts';
import type { SpaceBudgetOptions } from './space-budget.ts';

const READ_BYTES = 256 * 1024;
const MAX_WAITING_PER_SHARD = 64;
/** What a disk says that takes no writes. */
const DISK_FAILURES = ['EROFS', 'EIO', 'EACCES', 'EPERM', 'ENOENT', 'ENOTDIR'];

/** What a store works with. */
export interface ShardStoreComponents {
  readonly fs: HostFs;
  readonly log: Logger;
}

/** Bounds of a store. */
export interface ShardStoreOptions extends SpaceBudgetOptions {
  /** Shards whose trees stay in memory, 8 KiB each. */
  readonly maxKnownLeaves: number;
}

/** A range of leaves and what proves it. */
export interface LeafRange {
  readonly data: Buffer;
  readonly proof: Buffer[];
}

/** The shards of one folder. */
export class ShardStore {
  readonly budget: SpaceBudget;
  readonly #fs: HostFs;
  readonly #files: ShardFiles;
  /** Of shards that were stored or read from lately. */
  readonly #trees: LRUCache<string, MerkleTree>;
  readonly #open = new OpenShards();
  readonly #patience = new DiskPatience();
  readonly #perShard = new KeyedQueue(MAX_WAITING_PER_SHARD);

  #shards: number;
  #failure: XcoreError | undefined;

  private constructor(
    fs: HostFs,
    files: ShardFiles,
    budget: SpaceBudget,
    options: { readonly shards: number; readonly maxKnownLeaves: number },
  ) {
    this.#fs = fs;
    this.#shards = options.shards;
    this.#files = files;
    this.budget = budget;
    this.#trees = new LRUCache({ max: options.maxKnownLeaves });
  }

  /** Opens the folder, removes leftovers and counts what is there. */
  static async open(dir: string, { fs, log }: ShardStoreComponents, options: ShardStoreOptions): Promise<ShardStore> {
    const files = new ShardFiles({ fs, log }, dir);
    await files.prepare();
    const inventory = await files.takeInventory();
    log.info({ ...inventory }, 'took inventory');
    const diskFreeBytes = async (): Promise<number> => {
      const { bavail, bsize } = await fs.statfs(dir);
      return bavail * bsize;
    };
    return new ShardStore(fs, files, new SpaceBudget({ diskFreeBytes }, inventory.bytes, options), {
      shards: inventory.shards,
      maxKnownLeaves: options.maxKnownLeaves,
    });
  }

  /** Why nothing could be stored or removed last; undefined when something could. A full disk is none. */
  get failure(): XcoreError | undefined {
    return this.#failure;
  }

  /** Writes a file and removes it again, so that a disk that has recovered is noticed. */
  async tryDisk(): Promise<void> {
    const path = this.#files.temporaryPath();
    try {
      const file = await this.#files.openTemporary(path);
      await file.sync().finally(() => file.close());
      await this.#fs.unlink(path);
      this.#failure = undefined;
    } catch (error) {
      await this.#fs.rm(path, { force: true }).catch(() => undefined);
      this.#note(error);
    }
  }

  /** Shards that are stored. */
  get shards(): number {
    return this.#shards;
  }

  /** Reads a stored shard and compares it with its id; one that is gone meanwhile is true. A harmed one stays: some of its leaves may be good. */
  async verify(id: Uint8Array): Promise<boolean> {
    const sizeBytes = await this.#files.sizeOf(id);
    if (sizeBytes === null) return true;
    try {
      await this.#loadTree(id, sizeBytes);
      return true;
    } catch (error) {
      if (error instanceof RangeError || hasCode(error, 'CORRUPT_SHARD')) return false;
      if (hasCode(error, 'NOT_FOUND')) return true;
      if (codeOf(error) === 'EIO') return false;
      throw error;
    }
  }

  /** Whether the shard is stored, whole, unharmed and beyond a power cut; a harmed one is removed, so that it can be stored again. */
  async holds(id: Uint8Array, sizeBytes: number): Promise<boolean> {
    const stored = await this.#files.sizeOf(id);
    if (stored === null) return false;
    try {
      if (stored !== sizeBytes) throw otherSize();
      await this.#loadTree(id, sizeBytes);
    } catch (error) {
      if (!(error instanceof XcoreError)) throw error;
      await this.remove(id);
      return false;
    }
    // it may have got its name just now, or when the disk failed
    await this.#syncName(id);
    return true;
  }

  /**
   * Stores a shard from exactly so many bytes and resolves once a power cut cannot undo it. CORRUPT_SHARD when the
   * bytes are not the shard's, HOST_FULL; whatever `parts` throws.
   */
  async store(id: Uint8Array, sizeBytes: number, parts: () => AsyncIterable<Uint8Array>): Promise<void> {
    const path = this.#files.temporaryPath();
    const reservation = await this.budget.reserve(sizeBytes);
    try {
      const tree = merkleTree(await this.#receive(path, sizeBytes, parts()));
      if (!shardIdOfTree(tree, sizeBytes).equals(id)) {
        throw new XcoreError('CORRUPT_SHARD', 'the bytes that arrived are not those of the shard');
      }
      await this.#perShard.run(keyOf(id), async () => {
        const before = await this.#files.sizeOf(id);
        await this.#files.name(path, id);
        // it takes room now, whether or not the disk says that it stays
        this.#open.forget(keyOf(id));
        reservation.keep();
        if (before !== null) this.budget.removed(before);
        else this.#shards += 1;
        await this.#syncName(id);
      });
      this.#trees.set(keyOf(id), tree);
      this.#failure = undefined;
    } catch (error) {
      await this.#fs.rm(path, { force: true }).catch(() => undefined);
      if (codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT') {
        throw new XcoreError('HOST_FULL', "this host's disk is full", { cause: error });
      }
      throw this.#note(error);
    } finally {
      reservation.release();
    }
  }

  /** The bytes of a whole shard, unchecked: who reads it checks it. The parts are the caller's, to free as well. NOT_FOUND. */
  async read(id: Uint8Array, sizeBytes: number): Promise<AsyncIterable<Buffer>> {
    await this.#checkStored(id, sizeBytes);
    return this.#readParts(id, sizeBytes);
  }

  /**
   * Some leaves with their proof. NOT_FOUND; CORRUPT_SHARD when the file is not the shard any more; RangeError for leaves
   * that do not exist. `fresh`: as the folder has it now, whatever was read before.
   */
  async readLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    fresh = false,
  ): Promise<LeafRange> {
    if (fresh) this.#open.forget(keyOf(id));
    const opened = await this.#open.get(keyOf(id), () => this.#openSized(id));
    if (opened.sizeBytes !== sizeBytes) throw otherSize();
    const tree = this.#trees.get(keyOf(id)) ?? (await this.#loadTree(id, sizeBytes));
    const proof = proofOf(tree, firstLeaf, leafCount);
    const from = firstLeaf * LEAF_SIZE_BYTES;
    const to = Math.min(sizeBytes, from + leafCount * LEAF_SIZE_BYTES);
    const now = residentBytes(opened.file, from, to - from, this.#patience);
    const data = now ?? (await this.#readKept(id, opened, from, to - from));
    markToSend(data);
    return { data, proof };
  }

  /** Removes a shard; whether there was one. */
  async remove(id: Uint8Array): Promise<boolean> {
    return this.#perShard.run(keyOf(id), async () => {
      const sizeBytes = await this.#files.sizeOf(id);
      this.#trees.delete(keyOf(id));
      this.#open.forget(keyOf(id));
      if (sizeBytes === null || !(await this.#removeFile(id))) return false;
      this.budget.removed(sizeBytes);
      this.#shards -= 1;
      return true;
    });
  }

  /** Ids of stored shards above `after` (empty: all), ascending, at most `limit`. */
  list(after: Uint8Array, limit: number): Promise<Uint8Array[]> {
    return this.#files.list(after, limit);
  }

  /** Closes what is open. */
  close(): Promise<void> {
    return this.#open.close();
  }

  /** Makes removals durable. */
  syncRemovals(ids: readonly Uint8Array[]): Promise<void> {
    return this.#files.syncFolders(ids);
  }

  async #syncName(id: Uint8Array): Promise<void> {
    try {
      await this.#files.sync(id);
    } catch (error) {
      throw this.#note(error);
    }
  }

  async #removeFile(id: Uint8Array): Promise<boolean> {
    try {
      return await this.#files.remove(id);
    } catch (error) {
      throw this.#note(error);
    }
  }

  /** What a disk that does not write says, as others may know it: it may be well again soon. Other errors as they are. */
  #note(error: unknown): unknown {
    if (!DISK_FAILURES.includes(codeOf(error))) return error;
    this.#failure = levelFailure('the host can store nothing now', asError(error));
    return new XcoreError('EAGAIN', this.#failure.message, { cause: error });
  }

  /** Writes and syncs a temporary file and returns its leaf hashes; memory holds one leaf besides the part at hand. */
  async #receive(path: string, sizeBytes: number, parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
    const hasher = new LeafHasher(sizeBytes);
    const file = await this.#files.openTemporary(path);
    try {
      for await (const part of parts) {
        hasher.add(part);
        await file.writeFile(part);
      }
      const leaves = hasher.finish();
      await file.sync();
      return leaves;
    } finally {
      await file.close();
    }
  }

  async *#readParts(id: Uint8Array, sizeBytes: number): AsyncGenerator<Buffer> {
    const file = await this.#openFile(id);
    try {
      for (let at = 0; at < sizeBytes; at += READ_BYTES) {
        const length = Math.min(READ_BYTES, sizeBytes - at);
        const part = residentBytes(file, at, length) ?? (await readExactly(file, at, length));
        markToSend(part);
        yield part;
      }
    } finally {
      await file.close();
    }
  }

  async #readRange(id: Uint8Array, offset: number, length: number): Promise<Buffer> {
    const file = await this.#openFile(id);
    try {
      return await readExactly(file, offset, length);
    } finally {
      await file.close();
    }
  }

  async #loadTree(id: Uint8Array, sizeBytes: number): Promise<MerkleTree> {
    const tree = merkleTree(leafHashes(await this.#readRange(id, 0, sizeBytes)));
    if (!shardIdOfTree(tree, sizeBytes).equals(id)) throw new XcoreError('CORRUPT_SHARD', 'the stored shard is harmed');
    this.#trees.set(keyOf(id), tree);
    return tree;
  }

  async #checkStored(id: Uint8Array, sizeBytes: number): Promise<void> {
    const stored = await this.#files.sizeOf(id);
    if (stored === null) throw new XcoreError('NOT_FOUND', 'this host does not hold the shard');
    if (stored !== sizeBytes) throw otherSize();
  }

  /** Of a file that is kept open, unless it was closed meanwhile. */
  async #readKept(id: Uint8Array, { file }: OpenShard, offset: number, length: number): Promise<Buffer> {
    try {
      return await readExactly(file, offset, length);
    } catch (error) {
      this.#open.forget(keyOf(id));
      if (codeOf(error) !== 'EBADF') throw error;
      return this.#readRange(id, offset, length);
    }
  }

  async #openSized(id: Uint8Array): Promise<OpenShard> {
    const file = await this.#openFile(id);
    try {
      return { file, sizeBytes: (await file.stat()).size };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #openFile(id: Uint8Array): ReturnType<HostFs['open']> {
    try {
      return await this.#fs.open(this.#files.pathOf(id), 'r');
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      throw new XcoreError('NOT_FOUND', 'this host does not hold the shard', { cause: error });
    }
  }
}

function otherSize(): XcoreError {
  return new XcoreError('CORRUPT_SHARD', 'the stored shard has another size');
}

function keyOf(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}
