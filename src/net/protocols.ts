// Protocol ids and the limits of each protocol; what both ends must agree on.

/** Calls to the bridge, by clients and hosts: BridgeRequest and BridgeResponse. */
export const BRIDGE_PROTOCOL = '/xcore/bridge/1';
/** Transfers of shards between clients and hosts: HostRequest, HostResponse and raw bytes. */
export const SHARD_PROTOCOL = '/xcore/shard/1';
/** Agreement on a direct connection, over a relayed one: Punch, both ways. */
export const PUNCH_PROTOCOL = '/xcore/punch/1';

/** Longest message of the bridge protocol, either way. */
export const BRIDGE_FRAME_BYTES = 4 * 1024 * 1024;
/** Longest message of a stream whose other end has not said who it is for. */
export const GREETING_FRAME_BYTES = 16 * 1024;
/** A message to the bridge that has begun is whole after so long, or its stream ends. */
export const FRAME_TIMEOUT_MS = 60_000;
/** Longest frame of the shard protocol: a message, or raw bytes of a shard. */
export const SHARD_FRAME_BYTES = 256 * 1024;
/** Longest message of the punch protocol. */
export const PUNCH_FRAME_BYTES = 1_024;
/** Longest shard. */
export const MAX_SHARD_BYTES = 2_097_152;

/** Deadline of a call, when the caller names none. */
export const CALL_TIMEOUT_MS = 10_000;
/** Requests of one stream that may wait for an answer. */
export const MAX_IN_FLIGHT = 64;
/** Bytes of events that a watcher may leave unread before its stream is ended. */
export const MAX_UNREAD_EVENT_BYTES = 1024 * 1024;

/** Most shards of one Place. */
export const MAX_PLACE_SHARDS = 64;
/** Most receipts of one Confirm. */
export const MAX_CONFIRM_RECEIPTS = 256;
/** Most stocks of hashed keys of one HandOver. */
export const MAX_HAND_OVERS = 64;
/** Most shards of one Locate. */
export const MAX_LOCATE_SHARDS = 256;
