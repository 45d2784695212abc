// Hosts that rest: by the hour, or because their month's traffic is used up. A rest that was announced is held against
// nobody for a while. Pure functions of a host's record.

import type { HostRecord } from './proto/records_pb.ts';

const HOUR_MS = 3_600_000;
/** A host that is silent in its rest is excused for so long; beyond, its mirrors are missed like any others. */
export const MAX_EXCUSED_MS = 16 * HOUR_MS;

/** What a host tells of its rests; 0 for a time that is not known. */
export interface RestTold {
  readonly fromMs: number;
  readonly untilMs: number;
  /** There are such times at all. */
  readonly partTime: boolean;
}

/** Notes what a host has told. */
export function noteRest(record: HostRecord, { fromMs, untilMs, partTime }: RestTold): void {
  record.restFromMs = BigInt(Math.max(0, fromMs));
  record.restUntilMs = BigInt(Math.max(0, untilMs));
  record.partTime = partTime;
}

/** Whether the host moves no shards now, as far as it has told. */
export function isResting(record: HostRecord, nowMs: number): boolean {
  return Number(record.restFromMs) <= nowMs && nowMs < Number(record.restUntilMs);
}

/** Whether the host may be silent now. */
export function isExcused(record: HostRecord, nowMs: number): boolean {
  return Number(record.restFromMs) <= nowMs && nowMs < excusedUntil(record);
}

/** The part of a silence that counts as time in which the host was there. */
export function creditFor(record: HostRecord, fromMs: number, toMs: number): number {
  const from = Math.max(fromMs, Number(record.restFromMs));
  return Math.max(0, Math.min(toMs, excusedUntil(record)) - from);
}

function excusedUntil(record: HostRecord): number {
  return Math.min(Number(record.restUntilMs), Number(record.restFromMs) + MAX_EXCUSED_MS);
}
