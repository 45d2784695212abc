// Keys of the bridge's store: one letter for the kind, then raw ids of fixed length, then text or a number.
// Numbers are 8 bytes, big-endian, so that byte order is number order.

import type { PeerName } from '../net/network.ts';
import type { StoreRange } from '../lib/store.ts';

const SERIAL_BYTES = 16;
const SHARD_ID_BYTES = 32;

/** HostRecord. */
export function hostKey(host: PeerName): Uint8Array {
  return Buffer.from(`h${host}`);
}

/** VolumeRecord; `volume` is the owner's public key, 32 bytes. */
export function volumeKey(volume: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from('v'), volume]);
}

/** Encoded wire LogEntry without its body. */
export function entryKey(volume: Uint8Array, seq: bigint): Uint8Array {
  return numbered('e', volume, seq);
}

/** Sealed body of a log entry, as it came. */
export function bodyKey(volume: Uint8Array, seq: bigint): Uint8Array {
  return numbered('b', volume, seq);
}

/** ShardRecord. */
export function shardKey(shardId: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from('s'), shardId]);
}

/** StockRecord of one shard. */
export function stockKey(shardId: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from('k'), shardId]);
}

/** OrderRecord of one shard on one host. */
export function orderKey(shardId: Uint8Array, host: PeerName): Uint8Array {
  return Buffer.concat([Buffer.from('o'), shardId, Buffer.from(host)]);
}

/** The shard and host of an order key. */
export function parseOrderKey(key: Uint8Array): { shardId: Uint8Array; host: PeerName } {
  return { shardId: key.slice(1, 33), host: Buffer.from(key.subarray(33)).toString() };
}

/** DeleteRecord; the serial has 16 bytes. */
export function deleteKey(host: PeerName, serial: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`d${host}\0`), serial]);
}

/** The serial of a delete key. */
export function serialOfDeleteKey(key: Uint8Array): Uint8Array {
  return key.slice(key.length - SERIAL_BYTES);
}

/** Present when a host is to hold a shard: the directory's records, by host. */
export function mirrorKey(host: PeerName, shardId: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`m${host}\0`), shardId]);
}

/** Mirrors of a host with ids in [from, to); absent bounds are open. */
export function mirrorsOf(host: PeerName, limit: number, from?: Uint8Array, to?: Uint8Array): StoreRange {
  return {
    from: from ? mirrorKey(host, from) : Buffer.from(`m${host}\0`),
    to: to ? mirrorKey(host, to) : Buffer.from(`m${host}\x01`),
    limit,
  };
}

/** The smallest id above this one. */
export function nextId(shardId: Uint8Array): Uint8Array {
  return Buffer.concat([shardId, Buffer.alloc(1)]);
}

/** A shard to be repaired; the fewer mirrors are left, the earlier it comes. */
export function repairKey(mirrorsLeft: number, shardId: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from('r'), Uint8Array.of(mirrorsLeft), shardId]);
}

/** A shard to be repaired later. */
export function deferredRepairKey(readyMs: number, shardId: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from('w'), encodeNumber(BigInt(Math.floor(readyMs))), shardId]);
}

/** Shards deferred until `nowMs` or earlier. */
export function repairsDue(nowMs: number, limit: number): StoreRange {
  return { from: Buffer.from('w'), to: deferredRepairKey(nowMs + 1, new Uint8Array()), limit };
}

/** How far a job about a host has come. */
export function jobKey(kind: string, host: PeerName): Uint8Array {
  return Buffer.from(`j${kind}${host}`);
}

/** Kind and host of a job key. */
export function parseJobKey(key: Uint8Array): { kind: string; host: PeerName } {
  const text = Buffer.from(key).toString();
  return { kind: text.slice(1, 2), host: text.slice(2) };
}

/** When a host was first found with a shard that the bridge does not know, 8 bytes. */
export function strayKey(host: PeerName, shardId: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`x${host}\0`), shardId]);
}

/** Strays of a host with ids in [from, to). */
export function straysOf(host: PeerName, limit: number, from: Uint8Array, to?: Uint8Array): StoreRange {
  return { from: strayKey(host, from), to: to ? strayKey(host, to) : Buffer.from(`x${host}\x01`), limit };
}

/** A shard that no entry names yet, by the device that stored it and the time of its first receipt. The value says since when another device writes, 8 bytes, or is one byte. */
export function unnamedKey(volume: Uint8Array, device: PeerName, confirmedMs: number, shardId: Uint8Array): Uint8Array {
  return Buffer.concat([
    Buffer.from('p'),
    volume,
    Buffer.from(`${device}\0`),
    encodeNumber(BigInt(confirmedMs)),
    shardId,
  ]);
}

/** Unnamed shards of all devices of a volume but one; keys as of unnamedKey(). */
export function unnamedOfOthers(volume: Uint8Array, device: PeerName, limit: number): [StoreRange, StoreRange] {
  const from = Buffer.concat([Buffer.from('p'), volume]);
  const own = Buffer.concat([from, Buffer.from(`${device}\0`)]);
  const afterOwn = Buffer.concat([from, Buffer.from(`${device}\x01`)]);
  return [
    { from, to: own, limit },
    { from: afterOwn, to: Buffer.concat([from, Buffer.from([0xff])]), limit },
  ];
}

/** The shard at the end of any key that ends with one. */
export function shardAtEndOf(key: Uint8Array): Uint8Array {
  return key.slice(key.length - SHARD_ID_BYTES);
}

/** Says that the store has an index of mirrors by host. */
export const MIRROR_INDEX_KEY: Uint8Array = Buffer.from('zmirror-index');

/** Bytes that a host holds for a volume, 8 bytes. */
export function shareKey(volume: Uint8Array, host: PeerName): Uint8Array {
  return Buffer.concat([Buffer.from('u'), volume, Buffer.from(host)]);
}

/** The host of a share key. */
export function hostOfShareKey(key: Uint8Array): PeerName {
  return Buffer.from(key.subarray(33)).toString();
}

/** All keys that begin with `prefix`, which must not end with 0xff. */
export function startingWith(prefix: Uint8Array, limit?: number): StoreRange {
  const to = Buffer.from(prefix);
  to[to.length - 1] = to[to.length - 1]! + 1;
  return { from: prefix, to, limit };
}

/** Keys of one kind. */
export function ofKind(kind: 'h' | 'v' | 'o' | 's' | 'r' | 'w' | 'j'): StoreRange {
  return startingWith(Buffer.from(kind));
}

/** Deletes that wait for a host. */
export function deletesOf(host: PeerName, limit: number): StoreRange {
  return { from: Buffer.from(`d${host}\0`), to: Buffer.from(`d${host}\x01`), limit };
}

/** Shares of a volume, one for each host that holds some of it. */
export function sharesOf(volume: Uint8Array, limit: number): StoreRange {
  const from = Buffer.concat([Buffer.from('u'), volume]);
  return { from, to: Buffer.concat([from, Buffer.from([0xff])]), limit };
}

/** Log entries of a volume with seq in [from, to). */
export function entriesOf(volume: Uint8Array, from: bigint, to: bigint): StoreRange {
  return { from: entryKey(volume, from), to: entryKey(volume, to) };
}

/** A number as 8 bytes. */
export function encodeNumber(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** The number in 8 bytes; 0 when absent. */
export function decodeNumber(bytes: Uint8Array | undefined): bigint {
  return bytes ? Buffer.from(bytes.buffer, bytes.byteOffset, 8).readBigUInt64BE() : 0n;
}

function numbered(kind: string, volume: Uint8Array, value: bigint): Uint8Array {
  return Buffer.concat([Buffer.from(kind), volume, encodeNumber(value)]);
}
