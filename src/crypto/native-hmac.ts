// The HMAC-SHA-256 of the OpenSSL that Node carries, from memory to memory: node:crypto makes an object for each one,
// which costs four times the work on a small record and as much again of the collector. Knows no records.

import koffi from 'koffi';

/** Writes the HMAC-SHA-256 of the first `length` bytes of data, 32 bytes, to the start of `target`; key 32 bytes. */
export type HmacCall = (key: Uint8Array, data: Uint8Array, length: number, target: Uint8Array) => void;

const OK = 1;
const DIGEST_BYTES = 32;

/** OpenSSL's functions as exported by this Node, or null where it hides them. */
export function nativeHmac(): HmacCall | null {
  try {
    const library = koffi.load(null);
    const make = library.func('uintptr_t HMAC_CTX_new()') as () => number;
    const digest = (library.func('uintptr_t EVP_sha256()') as () => number)();
    const init = library.func(
      'int HMAC_Init_ex(uintptr_t context, uintptr_t key, int keyBytes, uintptr_t digest, uintptr_t engine)',
    ) as (context: number, key: number, keyBytes: number, digest: number, engine: number) => number;
    const update = library.func('int HMAC_Update(uintptr_t context, uintptr_t data, size_t bytes)') as (
      context: number,
      data: number,
      bytes: number,
    ) => number;
    const final = library.func('int HMAC_Final(uintptr_t context, uintptr_t out, uintptr_t outBytes)') as (
      context: number,
      out: number,
      outBytes: number,
    ) => number;
    const address = (bytes: Uint8Array): number => Number(koffi.address(bytes));
    // one for the life of the thread: every call sets the key anew
    const context = make();
    if (context === 0) return null;
    return (key, data, length, target) => {
      if (length > data.length) throw new RangeError(`${length} of ${data.length} bytes`);
      if (target.length < DIGEST_BYTES) throw new RangeError(`32 bytes into ${target.length}`);
      const isDone =
        init(context, address(key), key.length, digest, 0) === OK &&
        update(context, address(data), length) === OK &&
        final(context, address(target), 0) === OK;
      if (!isDone) throw new Error('OpenSSL refused to authenticate');
    };
  } catch {
    return null;
  }
}
