// What stands for a name in the local index: a keyed hash of the directory and the name, so that the
// index can be searched by name and shows none.

import { hmacInto } from './hmac.ts';

/** Length in bytes of a hidden name. */
export const HIDDEN_NAME_SIZE_BYTES = 16;

const MAC_SIZE_BYTES = 32;
const PARENT_SIZE_BYTES = 8;
const MAX_NAME_SIZE_BYTES = 255;

// Reused between calls: filled and hashed at once.
const input = Buffer.alloc(PARENT_SIZE_BYTES + MAX_NAME_SIZE_BYTES);

/**
 * HMAC-SHA256(nameKey, parent as 8 bytes big-endian | name), cut to 16 bytes.
 * parent: inode number, a safe integer; name: its bytes as latin1, at most 255; else RangeError.
 */
export function hiddenName(nameKey: Uint8Array, parent: number, name: string): Buffer {
  if (!Number.isSafeInteger(parent) || parent < 0) throw new RangeError(`inode number ${parent}`);
  if (name.length > MAX_NAME_SIZE_BYTES) throw new RangeError(`name of ${name.length} bytes`);
  input.writeUInt32BE(Math.floor(parent / 2 ** 32), 0);
  input.writeUInt32BE(parent % 2 ** 32, 4);
  for (let index = 0; index < name.length; index++) {
    const byte = name.charCodeAt(index);
    // Cut to 8 bits, two names would share one hidden name.
    if (byte > 0xff) throw new RangeError('a name is given as bytes, one latin1 character each');
    input[PARENT_SIZE_BYTES + index] = byte;
  }
  const mac = Buffer.allocUnsafe(MAC_SIZE_BYTES);
  hmacInto(nameKey, input, PARENT_SIZE_BYTES + name.length, mac);
  return mac.subarray(0, HIDDEN_NAME_SIZE_BYTES);
}
