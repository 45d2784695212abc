// Ed25519 signatures (RFC 8032 §5.1) over a label and a message, so that a signature made for one
// purpose never passes for another.

import { createPrivateKey, createPublicKey, hash, sign as signBytes, verify as verifyBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { LRUCache } from 'lru-cache';

const KEY_SIZE_BYTES = 32;
const SIGNATURE_SIZE_BYTES = 64;

// RFC 8410 §7 and §4: what stands before the 32 key bytes in DER.
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

const MAX_PRIVATE_KEYS = 16;
/** As many as a bridge has hosts, by default, and some clients; 1 KiB each. */
const MAX_PUBLIC_KEYS = 16_384;
const privateKeys = new LRUCache<string, KeyObject>({ max: MAX_PRIVATE_KEYS });
const publicKeys = new LRUCache<string, KeyObject>({ max: MAX_PUBLIC_KEYS });

/** The Ed25519 public key, 32 bytes, of a seed of 32 bytes (else RangeError). */
export function publicKeyOf(seed: Uint8Array): Buffer {
  const der = createPublicKey(privateKey(seed)).export({ format: 'der', type: 'spki' });
  return Buffer.from(der.subarray(SPKI_PREFIX.length));
}

/** Signs label | NUL | message with a seed of 32 bytes; 64 bytes. A label with a NUL in it is a RangeError. */
export function sign(seed: Uint8Array, label: string, message: Uint8Array): Buffer {
  if (label.includes('\0')) throw new RangeError('a signature label has no NUL');
  return signBytes(null, signedBytes(label, message), privateKey(seed));
}

/** Whether signature (64 bytes) is that of label and message under publicKey (32 bytes); malformed ones are false. */
export function verify(publicKey: Uint8Array, label: string, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== KEY_SIZE_BYTES || signature.length !== SIGNATURE_SIZE_BYTES) return false;
  if (label.includes('\0')) return false;
  try {
    return verifyBytes(null, signedBytes(label, message), publicKeyObject(publicKey), signature);
  } catch {
    return false;
  }
}

function signedBytes(label: string, message: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${label}\0`), message]);
}

function privateKey(seed: Uint8Array): KeyObject {
  if (seed.length !== KEY_SIZE_BYTES) throw new RangeError(`Ed25519 seed of ${seed.length} bytes, 32 needed`);
  // By hash: a seed does not belong into a string, which cannot be wiped.
  const name = hash('sha256', seed, 'base64');
  const known = privateKeys.get(name);
  if (known !== undefined) return known;
  const der = Buffer.concat([PKCS8_PREFIX, seed]);
  const made = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  privateKeys.set(name, made);
  return made;
}

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  const name = Buffer.from(publicKey).toString('base64');
  const known = publicKeys.get(name);
  if (known !== undefined) return known;
  const made = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: 'der', type: 'spki' });
  publicKeys.set(name, made);
  return made;
}
