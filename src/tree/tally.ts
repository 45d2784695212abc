// The tally of an index: how many records it holds, the sum of their stamps, and how far its outbox
// goes. One is written with each batch of changes, into a ring, so that batches which were lost from
// the middle are missed at the next start, and any lost, returned or replaced record by a full check.

import type { Sealer } from '../crypto/sealer.ts';
import { XcoreError } from '../lib/errors.ts';
import { encodeNumber, KIND, keyBytes } from './keys.ts';
import { TallyRecordSchema } from './proto/tree_pb.ts';
import { tallyBytes } from './record-bytes.ts';
import { unpack } from './record-codec.ts';

/** Batches that are remembered: read at each start, so that it stays a matter of milliseconds. */
export const TALLY_SLOTS = 2_048;
const MASK = (1n << 64n) - 1n;

/** What an index held after one batch. */
export interface Tally {
  /** Number of the batch, from 1 on; 0 for an index in which nothing was ever written. */
  readonly batch: number;
  /** Records but for those of the outbox, which are numbered, and of the ring. */
  readonly records: number;
  /** Of their stamps, modulo 2^64. */
  readonly sum: bigint;
  readonly lastCommit: number;
  /** The outbox holds all commits from here to lastCommit. */
  readonly firstUnpublished: number;
  /** Entries of the journal up to this one are in the index. */
  readonly journal: number;
  /** Random number of the journal that this is about; 0n for none. */
  readonly journalId: bigint;
}

/** The tally of an empty index. */
export const EMPTY_TALLY: Tally = {
  batch: 0,
  records: 0,
  sum: 0n,
  lastCommit: 0,
  firstUnpublished: 1,
  journal: 0,
  journalId: 0n,
};

/** Whether records of a kind are counted. */
export function isTallied(kind: string): boolean {
  return kind !== KIND.outbox && kind !== KIND.tally;
}

/** A running count; stamps are 64 random-looking bits that an onlooker cannot foretell, 0n for no record. */
export class TallyCount {
  records: number;
  sum: bigint;

  constructor(records = 0, sum = 0n) {
    this.records = records;
    this.sum = sum;
  }

  /** A record with stamp `before` became one with stamp `after`. */
  replace(before: bigint, after: bigint): void {
    this.records += (after === 0n ? 0 : 1) - (before === 0n ? 0 : 1);
    this.sum = (this.sum - before + after) & MASK;
  }
}

/** Key of the slot of a batch. */
export function tallyKey(batch: number): string {
  return KIND.tally + encodeNumber(batch % TALLY_SLOTS);
}

/** The sealed slot of a tally, under its key. */
export function sealTally(sealer: Sealer, tally: Tally): { key: Buffer; value: Buffer } {
  const key = keyBytes(tallyKey(tally.batch));
  return { key, value: sealer.seal(tallyBytes(tally), key) };
}

/** Reads one slot; CORRUPT_RECORD when it is damaged. */
export function openTally(sealer: Sealer, key: Buffer, value: Buffer): Tally {
  const tally = decodeTally(sealer.open(value, key));
  if (!keyBytes(tallyKey(tally.batch)).equals(key)) {
    throw new XcoreError('CORRUPT_RECORD', 'a tally in the slot of another');
  }
  return tally;
}

/** A tally from its plaintext; CORRUPT_RECORD when it is malformed. */
export function decodeTally(plaintext: Uint8Array): Tally {
  const r = unpack(TallyRecordSchema, plaintext);
  const [batch, records] = [Number(r.batch), Number(r.records)];
  const [lastCommit, firstUnpublished] = [Number(r.lastCommit), Number(r.firstUnpublished)];
  const journal = { journal: Number(r.journal), journalId: r.journalId };
  return { batch, records, sum: r.sum, lastCommit, firstUnpublished, ...journal };
}

/** The newest tally of a ring, and the batches that should be in it and are not. */
export function newestTally(tallies: readonly Tally[]): { newest: Tally; missing: number } {
  let newest = EMPTY_TALLY;
  for (const tally of tallies) if (tally.batch > newest.batch) newest = tally;
  const first = Math.max(0, newest.batch - TALLY_SLOTS);
  const present = tallies.filter(({ batch }) => batch > first).length;
  return { newest, missing: newest.batch - first - present };
}
