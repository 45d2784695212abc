// Records of shards as they are stored: hosts by their numbers, receipts as what does not follow from the rest. There are
// many millions of them, and little else takes room in a bridge's store.

import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import type { Receipt, Signed } from '../net/proto/wire_pb.ts';
import type { MirrorRecord, ShardRecord } from './proto/records_pb.ts';
import { mirrorRecord, shardRecord } from './records.ts';

/** Who has which number. */
export interface HostNumbers {
  /** 0 for a host without one. */
  numberOf(host: PeerName): number;
  hostNumbered(number: number): PeerName | undefined;
}

/** The bytes of a record. */
export function packShard(record: ShardRecord, numbers: HostNumbers): Uint8Array {
  return shardRecord.encode({ ...record, mirrors: record.mirrors.map((mirror) => packed(mirror, record, numbers)) });
}

/** The record again, each mirror with its host's name. BAD_FORMAT for what is no record, or names nobody. */
export function unpackShard(bytes: Uint8Array, numbers: HostNumbers): ShardRecord {
  const record = shardRecord.decode(bytes);
  for (const mirror of record.mirrors) {
    if (mirror.hostNumber === 0) continue;
    const host = numbers.hostNumbered(mirror.hostNumber);
    if (host === undefined) throw new XcoreError('BAD_FORMAT', `no host has the number ${mirror.hostNumber}`);
    mirror.host = host;
  }
  return record;
}

/** A mirror with its receipt, as the bridge counts it. */
export function mirrorOf({ host, serial, timeMs, client }: Receipt, signed: Signed, countedMs: number): MirrorRecord {
  const { signature } = signed;
  return mirrorRecord.make({ host, serial, receiptMs: timeMs, client, signature, countedMs: BigInt(countedMs) });
}

function packed(mirror: MirrorRecord, { device }: ShardRecord, numbers: HostNumbers): MirrorRecord {
  const hostNumber = numbers.numberOf(mirror.host);
  const host = hostNumber > 0 ? '' : mirror.host;
  return { ...mirror, host, hostNumber, client: mirror.client === device ? '' : mirror.client };
}
