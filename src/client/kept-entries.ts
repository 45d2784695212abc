// The newest entries of the volume log as they were signed, on this disk: two files, of which the older one goes when
// the newer one is full. Knows how they are found again, not what they say or what they are for.

import { dirname, join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import { syncFolder } from '../lib/atomic-file.ts';
import type { Disk, DiskFile } from '../lib/disk.ts';
import { systemDisk } from '../lib/disk.ts';
import { asError, ERRNO, errnoOf, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { entryHash } from '../net/entry-hash.ts';
import type { WireEntry } from '../net/network.ts';
import { EntryHeaderSchema } from '../net/proto/wire_pb.ts';

/** Of one of the two files: between once and twice as much of the log is kept. */
export const MAX_KEPT_FILE_BYTES: number = 16 * 1024 * 1024;

/** "xlog", the length of the header and that of the body (4 bytes each, big-endian), the signature. */
const MAGIC = 0x786c6f67;
const SIGNATURE_BYTES = 64;
const PREFIX_BYTES = 12 + SIGNATURE_BYTES;
/** As the bridge takes them; what claims to be longer is no entry. */
const MAX_HEADER_BYTES = 512 * 1024;
const MAX_BODY_BYTES = 3 * 1024 * 1024;
/** Failures in a row after which a disk that does not take entries keeps nobody waiting any more: some minutes of tries. */
const MAX_FAILURES = 300;

/** An entry that was kept, by where it lies. */
export interface KeptEntry {
  readonly seq: number;
  readonly hash: Buffer;
  readonly prevHash: Buffer;
  readonly path: string;
  readonly position: number;
}

/** A place in a log. */
export interface LogPlace {
  readonly seq: number;
  readonly hash: Uint8Array;
}

/** Why entries between two places cannot be shown: they were not kept, or they do not follow on the first of the two. */
export type NoChain = 'not kept' | 'another log';

/** What entries are kept with. */
export interface KeptEntriesComponents {
  readonly dir: string;
  readonly log: Logger;
  readonly disk?: Disk;
}

/** Keeps entries; one call at a time. */
export class KeptEntries {
  readonly #dir: string;
  readonly #disk: Disk;
  readonly #log: Logger;
  readonly #maxFileBytes: number;
  readonly #newer: string;
  readonly #older: string;
  #file: DiskFile | null = null;
  #end = 0;
  #isUnsynced = false;
  #failures = 0;

  constructor({ dir, log, disk = systemDisk }: KeptEntriesComponents, maxFileBytes = MAX_KEPT_FILE_BYTES) {
    this.#dir = dir;
    this.#disk = disk;
    this.#log = log;
    this.#maxFileBytes = maxFileBytes;
    this.#newer = join(dir, 'newer');
    this.#older = join(dir, 'older');
  }

  /** Keeps an entry: it outlives this process. Fails as the disk does, but not for ever: in the end the entry is not kept. */
  async keep({ header, signature, body }: WireEntry): Promise<void> {
    if (body.length === 0 || signature.length !== SIGNATURE_BYTES) return;
    const prefix = Buffer.alloc(12);
    prefix.writeUInt32BE(MAGIC, 0);
    prefix.writeUInt32BE(header.length, 4);
    prefix.writeUInt32BE(body.length, 8);
    const bytes = Buffer.concat([prefix, signature, header, body]);
    try {
      const file = await this.#fileFor(bytes.length);
      const { bytesWritten } = await file.write(bytes, 0, bytes.length, this.#end);
      if (bytesWritten < bytes.length) throw new XcoreError('ENOSPC', 'a part of an entry was written');
      this.#end += bytes.length;
      this.#isUnsynced = true;
    } catch (error) {
      // its end is looked for again
      await this.close().catch(() => undefined);
      this.#failed(asError(error));
    }
  }

  /** Lets what was kept outlive a power cut. Fails as keep() does. */
  async sync(): Promise<void> {
    if (!this.#isUnsynced) return;
    try {
      await this.#file?.datasync();
      this.#isUnsynced = false;
      this.#failures = 0;
    } catch (error) {
      this.#failed(asError(error));
    }
  }

  #failed(error: Error): void {
    this.#failures += 1;
    this.#log.warn({ error }, 'entries of the volume log could not be kept');
    if (this.#failures < MAX_FAILURES) throw error;
  }

  /** The entries after `from` up to `to`, oldest first. */
  async between(from: LogPlace, to: LogPlace): Promise<KeptEntry[] | NoChain> {
    const found = new Map<string, KeptEntry>();
    for (const path of [this.#older, this.#newer]) {
      for await (const entry of this.#entriesIn(path)) {
        if (entry.seq > from.seq && entry.seq <= to.seq) found.set(entry.hash.toString('hex'), entry);
      }
    }
    const entries: KeptEntry[] = [];
    let hash: Buffer = Buffer.from(to.hash);
    for (let { seq } = to; seq > from.seq; seq--) {
      const entry = found.get(hash.toString('hex'));
      if (entry?.seq !== seq) return 'not kept';
      entries.push(entry);
      hash = entry.prevHash;
    }
    const before = from.seq === 0 ? Buffer.alloc(32) : from.hash;
    return hash.equals(before) ? entries.reverse() : 'another log';
  }

  /** The bytes of an entry; CORRUPT_RECORD when they are gone. */
  async read({ path, position, seq }: KeptEntry): Promise<WireEntry> {
    const file = await this.#disk.open(path, 'r');
    try {
      const prefix = await readAt(file, position, PREFIX_BYTES);
      const lengths = prefix && lengthsIn(prefix);
      const rest = lengths && (await readAt(file, position + PREFIX_BYTES, lengths.header + lengths.body));
      if (!prefix || !lengths || !rest) throw new XcoreError('CORRUPT_RECORD', `entry ${seq} was not kept whole`);
      const header = rest.subarray(0, lengths.header);
      return { header, signature: prefix.subarray(12), body: rest.subarray(lengths.header) };
    } finally {
      await file.close();
    }
  }

  /** Ends the use of the files. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  /** The file that takes so many bytes more, at `#end`. */
  async #fileFor(sizeBytes: number): Promise<DiskFile> {
    this.#file ??= await this.#open();
    if (this.#end > 0 && this.#end + sizeBytes > this.#maxFileBytes) {
      await this.sync();
      await this.close();
      await this.#disk.rename(this.#newer, this.#older);
      this.#file = await this.#open();
    }
    return this.#file;
  }

  /** Opens the newer file, and cuts off what a power cut left of an entry. */
  async #open(): Promise<DiskFile> {
    await this.#disk.mkdir(this.#dir, { recursive: true, mode: 0o700 });
    this.#end = 0;
    for await (const { position, sizeBytes } of this.#recordsIn(this.#newer)) this.#end = position + sizeBytes;
    const file = await this.#disk.open(this.#newer, 'r+', 0o600).catch((error: unknown) => {
      if (errnoOf(error) !== ERRNO.ENOENT) throw error;
      return this.#disk.open(this.#newer, 'w+', 0o600);
    });
    const { size } = await file.stat();
    if (size > this.#end) await file.truncate(this.#end);
    if (size === 0) for (const dir of [this.#dir, dirname(this.#dir)]) await syncFolder(dir, this.#disk);
    return file;
  }

  async *#entriesIn(path: string): AsyncGenerator<KeptEntry> {
    for await (const { file, position, lengths } of this.#recordsIn(path)) {
      const header = await readAt(file, position + PREFIX_BYTES, lengths.header);
      if (header === null) return;
      try {
        const { seq, prevHash } = fromBinary(EntryHeaderSchema, header);
        yield { seq: Number(seq), hash: entryHash(header), prevHash: Buffer.from(prevHash), path, position };
      } catch {
        // zeros that a power cut left in the place of bytes
      }
    }
  }

  /** What lies in a file, up to the first that is not whole. */
  async *#recordsIn(path: string): AsyncGenerator<{
    file: DiskFile;
    position: number;
    sizeBytes: number;
    lengths: Lengths;
  }> {
    let file: DiskFile;
    try {
      file = await this.#disk.open(path, 'r');
    } catch (error) {
      if (errnoOf(error) === ERRNO.ENOENT) return;
      throw error;
    }
    try {
      const { size } = await file.stat();
      for (let position = 0; ;) {
        const prefix = await readAt(file, position, PREFIX_BYTES);
        const lengths = prefix && lengthsIn(prefix);
        if (!lengths) return;
        const sizeBytes = PREFIX_BYTES + lengths.header + lengths.body;
        if (position + sizeBytes > size) return;
        yield { file, position, sizeBytes, lengths };
        position += sizeBytes;
      }
    } finally {
      await file.close();
    }
  }
}

interface Lengths {
  readonly header: number;
  readonly body: number;
}

function lengthsIn(prefix: Buffer): Lengths | null {
  const lengths = { header: prefix.readUInt32BE(4), body: prefix.readUInt32BE(8) };
  const isEntry =
    prefix.readUInt32BE(0) === MAGIC && lengths.header <= MAX_HEADER_BYTES && lengths.body <= MAX_BODY_BYTES;
  return isEntry ? lengths : null;
}

async function readAt(file: DiskFile, position: number, length: number): Promise<Buffer | null> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, position);
  return bytesRead === length ? bytes : null;
}
