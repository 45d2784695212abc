// Between Ed25519 keys and libp2p peer ids in text form.

import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import { LRUCache } from 'lru-cache';
import { publicKeyOf } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from './network.ts';

const MAX_KNOWN_KEYS = 1_024;
const keys = new LRUCache<PeerName, Buffer>({ max: MAX_KNOWN_KEYS });

/** The peer name of an Ed25519 seed, 32 bytes. */
export function peerNameOf(seed: Uint8Array): PeerName {
  return peerIdFromPublicKey(publicKeyFromRaw(publicKeyOf(seed))).toString();
}

/** The Ed25519 public key, 32 bytes, inside a peer name; PROTOCOL when there is none. */
export function publicKeyOfPeer(name: PeerName): Buffer {
  const known = keys.get(name);
  if (known) return known;
  const key = parseKey(name);
  if (!key) throw new XcoreError('PROTOCOL', 'a peer id without an Ed25519 key');
  keys.set(name, key);
  return key;
}

function parseKey(name: PeerName): Buffer | null {
  try {
    const peerId = peerIdFromString(name);
    return peerId.type === 'Ed25519' ? Buffer.from(peerId.publicKey.raw) : null;
  } catch {
    return null;
  }
}
