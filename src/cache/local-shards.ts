// Verified ciphertext out of local files: each leaf is checked against leaf hashes that were checked against the shard
// id when the file was opened. Knows no keys and no network.

import { LRUCache } from 'lru-cache';
import {
  HASH_SIZE_BYTES,
  LEAF_SIZE_BYTES,
  leafCountOf,
  leafHashes,
  leafHashesInto,
  shardIdOf,
} from '../crypto/merkle.ts';
import { systemClock } from '../lib/clock.ts';
import type { DiskFile } from '../lib/disk.ts';
import { ERRNO, errnoOf, XcoreError } from '../lib/errors.ts';
import { DiskPatience, readAhead, ReadBuffer } from '../lib/resident-read.ts';
import { DiskTurns } from './disk-turns.ts';
import type { ShardFiles } from './shard-files.ts';
import type { ShardEntry } from './shard-table.ts';

/** With the leaf hashes of each, 4 KiB. */
const OPEN_FILES = 512;
/** Leaves that one read at once takes: 1 MiB that begins and ends inside of leaves. */
const LEAVES_AT_ONCE = 66;

/** Leaves for which the disk may be waited for. */
const PATIENT_LEAVES = 2;

/** A local file that is ready to be read. */
interface OpenShard {
  readonly file: DiskFile;
  readonly sizeBytes: number;
  /** Checked against the shard id. */
  readonly leaves: Buffer;
}

interface Opening {
  readonly opened: Promise<OpenShard>;
  ready: OpenShard | null;
}

/** Local files of sealed shards, kept open. */
export class LocalShards {
  readonly #files: ShardFiles;
  readonly #open = new LRUCache<number, Opening>({
    max: OPEN_FILES,
    // close() waits for reads under way
    dispose: ({ opened }) => void opened.then(({ file }) => file.close()).catch(() => undefined),
  });
  readonly #bytes = new ReadBuffer(LEAVES_AT_ONCE * LEAF_SIZE_BYTES);
  readonly #patience = new DiskPatience();
  /** Reads of this turn of the event loop for which the disk is needed. */
  #misses = 0;
  #isCrowded = false;
  readonly #turns = new DiskTurns();
  /** Reads by other threads under way. */
  #waiting = 0;

  constructor(files: ShardFiles) {
    this.#files = files;
  }

  /**
   * The leaves that hold bytes `from` to `to`, at most 1 MiB, lent until the next call, without any wait but for a few
   * leaves that a fast disk gives; null when a byte is not there or does not verify, and then it is for read() to find out.
   */
  readNow(shard: number, from: number, to: number): Buffer | null {
    const first = Math.floor(from / LEAF_SIZE_BYTES);
    const last = Math.floor((to - 1) / LEAF_SIZE_BYTES);
    const opened = this.#open.get(shard)?.ready;
    if (!opened || last - first >= LEAVES_AT_ONCE) return null;
    const { file, sizeBytes, leaves } = opened;
    if (to > sizeBytes) return null;
    const start = first * LEAF_SIZE_BYTES;
    const length = Math.min((last + 1) * LEAF_SIZE_BYTES, sizeBytes) - start;
    if (file.fd === undefined) return null;
    const { fd } = file;
    let bytes = this.#bytes.fill(fd, start, length);
    if (bytes === null && last - first < PATIENT_LEAVES && this.#isAlone()) {
      bytes = this.#patience.wait(() => this.#bytes.fill(fd, start, length, true));
    }
    if (bytes === null || !areLeaves(leaves, first, bytes)) return null;
    this.#files.touch(shard);
    return bytes;
  }

  /** Notes a read that the disk is needed for; whether no other one could be begun while this thread waits for it. */
  #isAlone(): boolean {
    if (this.#misses++ === 0) systemClock.soon(this.#endTurn);
    return this.#misses === 1 && !this.#isCrowded && this.#waiting === 0;
  }

  readonly #endTurn = (): void => {
    this.#isCrowded = this.#misses > 1;
    this.#misses = 0;
  };

  /** For a few leaves that readNow() did not have: resolves to true when it is worth another try. Null where it is not. */
  soon(shard: number, from: number, to: number): Promise<boolean> | null {
    const opened = this.#open.get(shard)?.ready;
    const last = Math.floor((to - 1) / LEAF_SIZE_BYTES);
    if (!opened || to > opened.sizeBytes || last - Math.floor(from / LEAF_SIZE_BYTES) >= PATIENT_LEAVES) return null;
    // readNow() has let the kernel begin to read; once the last byte is there, all are
    this.#waiting++;
    return this.#turns.arrival(opened.file, to - 1).finally(() => this.#waiting--);
  }

  /** Ciphertext of the leaves first to last; CORRUPT_SHARD when the file is not what the shard id says. */
  async read(shard: number, entry: ShardEntry, first: number, last: number): Promise<Buffer> {
    this.#files.touch(shard);
    const { file, leaves } = await this.#opened(shard, entry);
    const start = first * LEAF_SIZE_BYTES;
    const bytes = Buffer.allocUnsafeSlow(Math.min((last + 1) * LEAF_SIZE_BYTES, entry.sizeBytes) - start);
    this.#waiting++;
    try {
      await readFully(file, bytes, start);
    } finally {
      this.#waiting--;
    }
    if (!areLeaves(leaves, first, bytes)) {
      throw new XcoreError('CORRUPT_SHARD', `local bytes of shard ${shard} are damaged`);
    }
    return bytes;
  }

  /** Opens a file and has the kernel read it ahead, for a reader that comes to it soon; what fails is for read() to say. */
  async warm(shard: number, entry: ShardEntry): Promise<void> {
    const { file } = await this.#opened(shard, entry);
    if (file.fd !== undefined && file.fd >= 0) await readAhead(file.fd, 0, entry.sizeBytes);
  }

  #opened(shard: number, entry: ShardEntry): Promise<OpenShard> {
    const known = this.#open.get(shard);
    if (known !== undefined) return known.opened;
    const opening: Opening = { opened: this.#openFile(shard, entry), ready: null };
    this.#open.set(shard, opening);
    opening.opened.then(
      (opened) => (opening.ready = opened),
      () => {
        if (this.#open.peek(shard) === opening) this.#open.delete(shard);
      },
    );
    return opening.opened;
  }

  async #openFile(shard: number, { id, sizeBytes }: ShardEntry): Promise<OpenShard> {
    let file: DiskFile;
    try {
      file = await this.#files.disk.open(this.#files.path(shard), 'r');
    } catch (error) {
      if (errnoOf(error) !== ERRNO.ENOENT) throw error;
      throw new XcoreError('CORRUPT_SHARD', `the local file of shard ${shard} is gone`, { cause: error });
    }
    try {
      const leaves = Buffer.alloc(leafCountOf(sizeBytes) * HASH_SIZE_BYTES);
      const { bytesRead } = await file.read(leaves, 0, leaves.length, sizeBytes);
      if (bytesRead === leaves.length && shardIdOf(leaves, sizeBytes).equals(id)) return { file, sizeBytes, leaves };
      // the leaf hashes were not written or are damaged; the bytes may still be right
      const bytes = Buffer.allocUnsafe(sizeBytes);
      await readFully(file, bytes, 0);
      const computed = leafHashes(bytes);
      if (shardIdOf(computed, sizeBytes).equals(id)) return { file, sizeBytes, leaves: computed };
      throw new XcoreError('CORRUPT_SHARD', `the local file of shard ${shard} does not match its id`);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Closes the file of a shard, which is damaged or goes. */
  forget(shard: number): void {
    this.#open.delete(shard);
  }

  /** Closes all files. */
  async stop(): Promise<void> {
    const opened = await Promise.allSettled([...this.#open.values()].map((opening) => opening.opened));
    for (const result of opened) if (result.status === 'fulfilled') await result.value.file.close();
  }
}

const computed = Buffer.alloc(LEAVES_AT_ONCE * HASH_SIZE_BYTES);

/** Whether bytes are those of the leaves from `first` on. */
function areLeaves(leaves: Buffer, first: number, bytes: Uint8Array): boolean {
  const length = Math.ceil(bytes.length / LEAF_SIZE_BYTES) * HASH_SIZE_BYTES;
  const target = length <= computed.length ? computed : Buffer.alloc(length);
  leafHashesInto(bytes, bytes.length, target);
  const start = first * HASH_SIZE_BYTES;
  return leaves.compare(target, 0, length, start, start + length) === 0;
}

async function readFully(file: DiskFile, buffer: Buffer, position: number): Promise<void> {
  for (let done = 0; done < buffer.length;) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done);
    if (bytesRead === 0) throw new XcoreError('CORRUPT_SHARD', 'a local shard file is too short');
    done += bytesRead;
  }
}
