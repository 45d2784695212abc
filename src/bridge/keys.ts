// Keys of the bridge's store: one letter for the kind, then raw ids of fixed length, then text or a number.
// Numbers are 8 bytes, big-endian, so that byte order is number order.

import type { PeerName } from '../net/network.ts';
import type { StoreRange } from './store.ts';

const SERIAL_BYTES = 16;

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
export function ofKind(kind: 'h' | 'v' | 'o'): StoreRange {
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
