// The opaque, ordered log of each volume: append by compare-and-swap, read, prune. Headers stay for
// ever, so that the chain of hashes stays provable; bodies go once a checkpoint replaces them.

import { create, toBinary, fromBinary } from '@bufbuild/protobuf';
import { XcoreError } from '../lib/errors.ts';
import { LogEntrySchema } from '../net/proto/wire_pb.ts';
import type { EntryHeader, LogEntry, ReadLog } from '../net/proto/wire_pb.ts';
import type { ResponseInit } from '../net/rpc.ts';
import type { Owner } from './authenticate.ts';
import { entryHash } from '../net/entry-hash.ts';
import { checkEntry, MAX_BODY_BYTES, MAX_HEADER_BYTES } from './entry.ts';
import type { EntryEffects } from './entry-effects.ts';
import { bodyKey, entriesOf, entryKey } from './keys.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import { checkWriter } from './lease.ts';
import type { VolumeRecord } from './proto/records_pb.ts';
import { hexOf, sameBytes } from './records.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import type { Volumes } from './volumes.ts';

const MAX_READ_BYTES = MAX_BODY_BYTES + MAX_HEADER_BYTES;
const MAX_READ_ENTRIES = 4_096;
/** Bodies that one append prunes; the next one goes on. */
const MAX_PRUNED = 2_048;
/** What an entry costs in an answer besides header and body: its signature and the framing. */
const ENTRY_OVERHEAD_BYTES = 96;

/** Newest entry of a log. */
export interface HeadView {
  readonly seq: bigint;
  readonly hash: Uint8Array;
  readonly checkpointEntrySeq: bigint;
}

/** What a log works with. */
export interface VolumeLogComponents {
  readonly store: Store;
  readonly volumes: Volumes;
  readonly effects: EntryEffects;
  readonly volumeQueue: KeyedQueue;
  /** Called after each append. */
  readonly onAppend: (volume: Uint8Array, head: HeadView) => void;
}

/** The logs of all volumes. */
export class VolumeLog {
  readonly #components: VolumeLogComponents;

  constructor(components: VolumeLogComponents) {
    this.#components = components;
  }

  /**
   * Appends the next entry and resolves with the new head once a power cut cannot undo it. The newest entry
   * sent again is answered as if it were new. One that comes `again` was in this log before a bridge was restored from
   * a backup: any device of the owner may hand it in, whoever wrote it and whoever has the lease, and its shards
   * need no mirrors that are known. STALE_HEAD, LEASE_LOST, QUOTA, REFUSED, PROTOCOL, TOO_LARGE.
   */
  async append(owner: Owner, entry: LogEntry | undefined, again = false): Promise<ResponseInit> {
    const header = checkEntry(owner, entry, again);
    const { header: headerBytes, signature, body } = entry!;
    const hash = entryHash(headerBytes);
    const { volume } = owner;
    return this.#components.volumeQueue.run(hexOf(volume), async () => {
      const { volumes, effects, store, onAppend } = this.#components;
      // a restored bridge may not know the volume
      if (again) await volumes.ensure(volume);
      const record = await volumes.get(volume);
      if (header.seq === record.headSeq && sameBytes(hash, record.headHash)) return headAnswer(record);
      if (!again) checkWriter(record, owner.peer, header.epoch);
      checkNext(record, header);
      const writes = again ? await effects.again(owner, header, record) : await effects.of(owner, header, record);
      if (again) regainLease(record, header);
      const stored = create(LogEntrySchema, { header: headerBytes, signature });
      writes.push({ key: entryKey(volume, header.seq), value: toBinary(LogEntrySchema, stored) });
      writes.push({ key: bodyKey(volume, header.seq), value: body });
      advance(record, header, hash);
      writes.push(...prune(volume, record), volumes.put(volume, record));
      await store.batch(writes, { sync: true });
      onAppend(volume, headOf(record));
      return headAnswer(record);
    });
  }

  /** Entries from a seq on, as many as fit, at least one if there is one. */
  async read(owner: Owner, request: ReadLog): Promise<ResponseInit> {
    const { store, volumes } = this.#components;
    const { volume } = owner;
    const record = await volumes.get(volume);
    const from = request.fromSeq > 0n ? request.fromSeq : 1n;
    const maxBytes = Math.min(request.maxBytes, MAX_READ_BYTES);
    const entries: LogEntry[] = [];
    let bytes = 0;
    if (from <= record.headSeq) {
      let seq = from;
      for await (const [, value] of store.range({
        ...entriesOf(volume, from, record.headSeq + 1n),
        limit: MAX_READ_ENTRIES,
      })) {
        const entry = fromBinary(LogEntrySchema, value);
        if (!request.headersOnly) entry.body = (await store.get(bodyKey(volume, seq))) ?? entry.body;
        bytes += entry.header.length + entry.body.length + ENTRY_OVERHEAD_BYTES;
        if (entries.length > 0 && bytes > maxBytes) break;
        entries.push(entry);
        seq += 1n;
      }
    }
    return { case: 'logEntries', value: { entries, head: headOf(record) } };
  }

  /** The head of a volume's log. */
  async head(volume: Uint8Array): Promise<HeadView> {
    return headOf(await this.#components.volumes.get(volume));
  }
}

function checkNext(record: VolumeRecord, header: EntryHeader): void {
  if (header.seq !== record.headSeq + 1n || !sameBytes(header.prevHash, record.headHash)) {
    throw new XcoreError('STALE_HEAD', `the log is at entry ${record.headSeq} ${hexOf(record.headHash)}`);
  }
  if (header.checkpointSeq > 0n && header.checkpointSeq < record.checkpointSeq) {
    throw new XcoreError('REFUSED', `a checkpoint of ${record.checkpointSeq} is there already`);
  }
}

/** A writer proves by its entry that it had a lease which this bridge has forgotten. */
function regainLease(record: VolumeRecord, { epoch, device }: EntryHeader): void {
  if (epoch <= record.leaseEpoch) return;
  record.leaseEpoch = epoch;
  record.leaseHolder = device;
}

function advance(record: VolumeRecord, header: EntryHeader, hash: Uint8Array): void {
  record.headSeq = header.seq;
  record.headHash = hash;
  if (header.checkpointSeq === 0n) return;
  record.checkpointEntrySeq = header.seq;
  record.checkpointSeq = header.checkpointSeq;
}

/** Deletes of bodies that the newest checkpoint replaces; never its own. */
function prune(volume: Uint8Array, record: VolumeRecord): StoreWrite[] {
  const writes: StoreWrite[] = [];
  const isReplaced = (seq: bigint): boolean => seq <= record.checkpointSeq && seq < record.checkpointEntrySeq;
  while (writes.length < MAX_PRUNED && isReplaced(record.prunedSeq + 1n)) {
    record.prunedSeq += 1n;
    writes.push({ key: bodyKey(volume, record.prunedSeq) });
  }
  return writes;
}

function headOf(record: VolumeRecord): HeadView {
  return { seq: record.headSeq, hash: record.headHash, checkpointEntrySeq: record.checkpointEntrySeq };
}

function headAnswer(record: VolumeRecord): ResponseInit {
  return { case: 'head', value: headOf(record) };
}
