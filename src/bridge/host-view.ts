// A host as the parts of a bridge see it: its record, judged as of now. Changes nothing and keeps nothing.

import type { PeerName } from '../net/network.ts';
import { isExcused, isResting } from './host-rest.ts';
import type { RestTold } from './host-rest.ts';
import { isDependable, standingOf, takesShards, uptimeOf } from './host-standing.ts';
import type { StandingView } from './host-standing.ts';
import type { Candidate, Place } from './placement.ts';
import type { HostRecord } from './proto/records_pb.ts';

/** A host's own figures. */
export interface HostSpace {
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  readonly paused?: boolean;
  /** Once true, always true: a host that has asked to leave leaves. */
  readonly exiting?: boolean;
  readonly rest?: RestTold;
}

/** Where a host is: the network seen by the bridge, the rest as its owner says. */
export type HostPlace = Partial<Pick<Place, 'network' | 'operator' | 'region'>>;

/** A host as placement, answers and status need it. */
export interface HostView extends Candidate, HostSpace {
  readonly addresses: readonly string[];
  readonly lastSeenMs: number;
  readonly standing: StandingView;
  /** Whether what it holds counts as mirrors. */
  readonly dependable: boolean;
  /** It moves no shards now; what it holds counts all the same. */
  readonly resting: boolean;
  /** It may be silent now. */
  readonly excused: boolean;
  /** Since when its mirrors do not count, because it was away for too long; 0: they do. */
  readonly lostMs: number;
  /** Audits in a row without an answer, and when one was last answered. */
  readonly unanswered: number;
  readonly answeredMs: number;
  /** That it is to hold; may be off after a crash. */
  readonly shards: number;
  readonly inventoryMs: number;
}

/** What a view is made of. */
export interface HostNow {
  readonly host: PeerName;
  readonly record: HostRecord;
  /** Where others are to dial it. */
  readonly addresses: readonly string[];
  readonly online: boolean;
  readonly nowMs: number;
}

/** The host as it stands at `nowMs`. */
export function viewOf({ host, record, addresses, online, nowMs }: HostNow): HostView {
  const standing = standingOf(record);
  return {
    host,
    online,
    addresses,
    lastSeenMs: Number(record.lastSeenMs),
    capacityBytes: Number(record.capacityBytes),
    usedBytes: Number(record.usedBytes),
    freeBytes: Number(record.freeBytes),
    bytesPerSecond: record.bytesPerSecond,
    reliability: record.reliability,
    uptime: uptimeOf(record, nowMs, online),
    takesShards: takesShards(record),
    vetted: standing.state !== 'vetting',
    network: record.network,
    operator: record.operator,
    region: record.region,
    partTime: record.partTime,
    resting: isResting(record, nowMs),
    excused: isExcused(record, nowMs),
    standing,
    dependable: isDependable(record),
    lostMs: Number(record.lostMs),
    unanswered: record.unanswered,
    answeredMs: Number(record.answeredMs),
    shards: Number(record.shards),
    inventoryMs: Number(record.inventoryMs),
  };
}
