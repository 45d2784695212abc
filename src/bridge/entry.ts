// What a log entry must be by itself: its parts fit each other and its owner signed it. Knows no log.

import { createHash } from 'node:crypto';
import { fromBinary } from '@bufbuild/protobuf';
import { verify } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import { ENTRY_LABEL, ENTRY_VERSION } from '../net/entry-hash.ts';
import { EntryHeaderSchema } from '../net/proto/wire_pb.ts';
import type { EntryHeader, LogEntry } from '../net/proto/wire_pb.ts';
import type { Owner } from './authenticate.ts';
import { checkDistinct, checkShard, checkShardId, sameBytes } from './records.ts';

/** Longest encoded header; room for about 10,000 shards. */
export const MAX_HEADER_BYTES = 512 * 1024;
/** Longest sealed body. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024;
/** Most shards that one entry adds, and most that it frees. */
export const MAX_ENTRY_SHARDS = 8_192;

/** The header of an entry by this owner and device, or by any device of the owner if it comes `again`. TOO_LARGE, BAD_FORMAT for an unknown version, PROTOCOL, REFUSED for a wrong signature. */
export function checkEntry(owner: Owner, entry: LogEntry | undefined, again = false): EntryHeader {
  if (!entry) throw new XcoreError('PROTOCOL', 'the entry is missing');
  if (entry.header.length > MAX_HEADER_BYTES || entry.body.length > MAX_BODY_BYTES) {
    throw new XcoreError(
      'TOO_LARGE',
      `an entry has at most ${MAX_HEADER_BYTES} bytes of header, ${MAX_BODY_BYTES} of body`,
    );
  }
  const header = decodeHeader(entry.header);
  if (header.version !== ENTRY_VERSION)
    throw new XcoreError('BAD_FORMAT', `log entries of version ${header.version} are unknown`);
  if (!sameBytes(header.volume, owner.volume)) throw new XcoreError('REFUSED', 'the entry is for another volume');
  if (!again && header.device !== owner.peer)
    throw new XcoreError('REFUSED', 'the entry was written by another device');
  if (!verify(owner.volume, ENTRY_LABEL, entry.header, entry.signature)) {
    throw new XcoreError('REFUSED', "the entry is not signed by the volume's owner");
  }
  checkBody(header, entry.body);
  checkShards(header);
  if (header.checkpointSeq > header.seq) throw new XcoreError('PROTOCOL', 'a checkpoint of what is still to come');
  return header;
}

function decodeHeader(bytes: Uint8Array): EntryHeader {
  try {
    return fromBinary(EntryHeaderSchema, bytes);
  } catch (cause) {
    throw new XcoreError('PROTOCOL', 'malformed entry header', { cause });
  }
}

function checkBody(header: EntryHeader, body: Uint8Array): void {
  const hash = createHash('sha256').update(body).digest();
  if (body.length !== header.bodySizeBytes || !hash.equals(header.bodyHash)) {
    throw new XcoreError('PROTOCOL', 'the body is not the one that the header names');
  }
}

function checkShards({ shardsAdded, shardsFreed }: EntryHeader): void {
  if (shardsAdded.length > MAX_ENTRY_SHARDS || shardsFreed.length > MAX_ENTRY_SHARDS) {
    throw new XcoreError('TOO_LARGE', `an entry adds and frees at most ${MAX_ENTRY_SHARDS} shards`);
  }
  for (const shard of shardsAdded) checkShard(shard);
  for (const id of shardsFreed) checkShardId(id);
  checkDistinct(shardsAdded.map(({ shardId }) => shardId));
  checkDistinct(shardsFreed);
}
