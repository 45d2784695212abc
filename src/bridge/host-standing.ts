// How a host is judged: the rules by which audits become a standing with a reason. What clients say of a host
// weighs in its placement only, never here. Pure functions of a host's record.

import type { Standing } from '../net/proto/wire_pb.ts';
import { MAX_MIRRORS } from './policy.ts';
import type { HostRecord } from './proto/records_pb.ts';

/** vetting and good hosts get new shards; what a disqualified or leaving one holds is moved away. */
export type StandingState = 'vetting' | 'good' | 'suspended' | 'disqualified' | 'leaving';

/** A standing and, for its owner to read, why. */
export interface StandingView {
  readonly state: StandingState;
  readonly reason: string;
}

/** Audits that a host passes before it counts as vetted. */
export const VETTING_AUDITS = 100;
/** Each audit takes this share off the weight of all earlier ones: about the last 100 count. */
const AUDIT_FADING = 0.01;
/** Passed audits with which a host starts, so that one failure does not end it. */
const FIRST_PASSED_WEIGHT = 20;
/** Below this share of passed audits a host gets nothing new. */
export const SUSPENDED_BELOW = 0.95;
/** Below this share a host is out, for good. */
export const DISQUALIFIED_BELOW = 0.8;
/** Audits in a row without an answer after which a host gets nothing new. */
export const MAX_UNANSWERED = 5;
/** Notes an audit that the host passed or failed; a failing one may disqualify it. */
export function noteAudit(record: HostRecord, passed: boolean, nowMs: number): void {
  const before = weightsOf(record);
  const keep = 1 - AUDIT_FADING;
  record.passedWeight = before.passed * keep + (passed ? 1 : 0);
  record.failedWeight = before.failed * keep + (passed ? 0 : 1);
  if (passed) record.auditsPassed += 1n;
  else record.auditsFailed += 1n;
  record.unanswered = 0;
  record.answeredMs = BigInt(nowMs);
  const score = auditScore(record);
  if (score < DISQUALIFIED_BELOW && record.disqualified === '') {
    record.disqualified = `it failed ${record.auditsFailed} audits, and passed only ${percent(score)} of late`;
  }
}

/** Share of passed audits, fading; 1 for a host without any. */
export function auditScore(record: HostRecord): number {
  const { passed, failed } = weightsOf(record);
  return passed / (passed + failed);
}

/** Share of the time since the host was first seen in which it was there; one that is `online` has been since it was heard of last. */
export function uptimeOf(record: HostRecord, nowMs: number, online: boolean): number {
  const known = nowMs - Number(record.firstSeenMs);
  const sinceHeard = online ? Math.max(0, nowMs - Number(record.lastSeenMs)) : 0;
  return known > 0 ? Math.min(1, (Number(record.onlineMs) + sinceHeard) / known) : 1;
}

/** The standing and its reason. */
export function standingOf(record: HostRecord): StandingView {
  if (record.disqualified !== '') return { state: 'disqualified', reason: record.disqualified };
  if (record.exiting) return { state: 'leaving', reason: 'it asked to leave; its shards are moved away' };
  const score = auditScore(record);
  // One that holds nothing could not prove itself: it gets a few shards, as when it was new.
  if (score < SUSPENDED_BELOW && record.shards > 0n) {
    return { state: 'suspended', reason: `it passed only ${percent(score)} of the audits of late` };
  }
  if (record.unanswered >= MAX_UNANSWERED) {
    return { state: 'suspended', reason: `it left ${record.unanswered} audits in a row without an answer` };
  }
  if (score < SUSPENDED_BELOW) {
    return { state: 'vetting', reason: `it passed only ${percent(score)} of the audits of late, and holds nothing` };
  }
  if (record.auditsPassed < BigInt(VETTING_AUDITS)) {
    return { state: 'vetting', reason: `it has passed ${record.auditsPassed} of the first ${VETTING_AUDITS} audits` };
  }
  return { state: 'good', reason: `it passed ${percent(score)} of the audits of late` };
}

/** What a host is told of itself; `others` is the number of other hosts that could take what it holds. */
export function toldStanding(record: HostRecord, uptime: number, others: () => number): Omit<Standing, '$typeName'> {
  const standing = standingOf(record);
  return {
    ...standing,
    ...(standing.state === 'leaving' ? { reason: leavingReason(others()) } : {}),
    shards: record.shards,
    shardBytes: record.shardBytes,
    auditsPassed: record.auditsPassed,
    auditsFailed: record.auditsFailed,
    auditScore: auditScore(record),
    uptime,
    reliability: record.reliability,
    mayLeave: record.exiting && record.shards === 0n,
  };
}

function leavingReason(others: number): string {
  const moved = `its shards are moved to the ${others} other hosts that take shards now`;
  const some = others < MAX_MIRRORS ? '; one that has mirrors on all of these waits until more hosts join' : '';
  return `it asked to leave; ${moved}${some}`;
}

/** Whether the host may be given shards. */
export function takesShards(record: HostRecord): boolean {
  const { state } = standingOf(record);
  return (state === 'good' || state === 'vetting') && !record.paused && record.lostMs === 0n;
}

/** Whether what it holds counts as mirrors. */
export function isDependable(record: HostRecord): boolean {
  return record.disqualified === '' && !record.exiting && record.lostMs === 0n;
}

function weightsOf(record: HostRecord): { passed: number; failed: number } {
  const fresh = record.passedWeight === 0 && record.failedWeight === 0;
  return { passed: fresh ? FIRST_PASSED_WEIGHT : record.passedWeight, failed: record.failedWeight };
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
