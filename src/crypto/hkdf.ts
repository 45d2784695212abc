// Keys from keys: HKDF-SHA256 (RFC 5869) with a readable label for each purpose.

import { hkdfSync } from 'node:crypto';

/** Length in bytes of every symmetric key, seed and key salt. */
export const KEY_SIZE_BYTES = 32;

const NO_SALT = new Uint8Array(0);

/** The key, 32 bytes, that HKDF-SHA256 gives for key, label (as info) and salt (empty unless given). */
export function subkey(key: Uint8Array, label: string, salt: Uint8Array = NO_SALT): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, label, KEY_SIZE_BYTES));
}
