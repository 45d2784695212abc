// Between Ed25519 keys and libp2p peer ids in text form. Does without libp2p, which the mount's own
// thread has no need to load.

import { LRUCache } from 'lru-cache';
import { base58btc } from 'multiformats/bases/base58';
import { publicKeyOf } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from './network.ts';

/** Identity multihash of 36 bytes: a protobuf PublicKey of type Ed25519 with 32 bytes (libp2p specs, peer-ids.md). */
const PREFIX = Buffer.from('0024' + '08011220', 'hex');
const KEY_BYTES = 32;

/** As many as a bridge has hosts, by default, and some clients. */
const MAX_KNOWN_KEYS = 16_384;
const keys = new LRUCache<PeerName, Buffer>({ max: MAX_KNOWN_KEYS });

/** The peer name of an Ed25519 seed, 32 bytes. */
export function peerNameOf(seed: Uint8Array): PeerName {
  return base58btc.baseEncode(Buffer.concat([PREFIX, publicKeyOf(seed)]));
}

/** The Ed25519 public key, 32 bytes, inside a peer name; PROTOCOL when there is none. */
export function publicKeyOfPeer(name: PeerName): Buffer {
  const known = keys.get(name);
  if (known) return known;
  const bytes = decode(name);
  if (!bytes?.subarray(0, PREFIX.length).equals(PREFIX) || bytes.length !== PREFIX.length + KEY_BYTES) {
    throw new XcoreError('PROTOCOL', 'a peer id without an Ed25519 key');
  }
  const key = bytes.subarray(PREFIX.length);
  keys.set(name, key);
  return key;
}

/** The address of a peer behind the relay of a bridge; whoever dials it is connected to the bridge already. */
export function relayedAddress(bridge: PeerName, peer: PeerName): string {
  return `/p2p/${bridge}/p2p-circuit/p2p/${peer}`;
}

/** Whether what is at this multiaddr is reached through a relay. */
export function isRelayed(address: { toString(): string }): boolean {
  return address.toString().includes('/p2p-circuit');
}

/** The peer named by a multiaddr's last /p2p/ part; USAGE when it has none. */
export function peerNameIn(address: string): PeerName {
  const parts = address.split('/');
  const at = parts.lastIndexOf('p2p');
  const name = at >= 0 ? parts[at + 1] : undefined;
  if (!name) throw new XcoreError('USAGE', `${address} does not end with /p2p/ and a peer id`);
  return name;
}

function decode(name: PeerName): Buffer | null {
  try {
    return Buffer.from(base58btc.baseDecode(name));
  } catch {
    return null;
  }
}
