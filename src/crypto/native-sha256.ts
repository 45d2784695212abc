// The SHA-256 of the OpenSSL that Node carries, from memory to memory: node:crypto makes a new buffer for each hash,
// and wants what is hashed in one run of bytes, so that it would have to be copied behind its prefix. Knows no trees.

import koffi from 'koffi';

/**
 * Writes SHA-256(prefix | data[start .. start + length]), 32 bytes, to `target` at `at`. prefix: 0 to 255; RangeError where
 * data or target end before that.
 */
export type PrefixedSha256 = (
  prefix: number,
  data: Uint8Array,
  start: number,
  length: number,
  target: Uint8Array,
  at: number,
) => void;

const OK = 1;
const DIGEST_BYTES = 32;

/** OpenSSL's functions as exported by this Node, or null where it hides them. */
export function nativeSha256(): PrefixedSha256 | null {
  try {
    const library = koffi.load(null);
    const make = library.func('uintptr_t EVP_MD_CTX_new()') as () => number;
    const digest = library.func('uintptr_t EVP_sha256()') as () => number;
    const init = library.func('int EVP_DigestInit_ex(uintptr_t context, uintptr_t digest, uintptr_t engine)') as (
      context: number,
      digest: number,
      engine: number,
    ) => number;
    const update = library.func('int EVP_DigestUpdate(uintptr_t context, uintptr_t data, size_t bytes)') as (
      context: number,
      data: number,
      bytes: number,
    ) => number;
    const final = library.func('int EVP_DigestFinal_ex(uintptr_t context, uintptr_t out, uintptr_t outBytes)') as (
      context: number,
      out: number,
      outBytes: number,
    ) => number;
    // one for the life of the thread: every call begins anew
    const context = make();
    if (context === 0 || init(context, digest(), 0) !== OK) return null;
    // looked up again in each call, which also keeps it from the collector
    const prefixes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    return (prefix, data, start, length, target, at) => {
      checkRange(data, start, length);
      checkRange(target, at, DIGEST_BYTES);
      const isDone =
        init(context, 0, 0) === OK &&
        update(context, addressOf(prefixes) + (prefix & 0xff), 1) === OK &&
        (length === 0 || update(context, addressOf(data) + start, length) === OK) &&
        final(context, addressOf(target) + at, 0) === OK;
      if (!isDone) throw new Error('OpenSSL refused to hash');
    };
  } catch {
    return null;
  }
}

function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

function checkRange(bytes: Uint8Array, start: number, length: number): void {
  if (start < 0 || length < 0 || start + length > bytes.length) {
    throw new RangeError(`bytes ${start} to ${start + length} of ${bytes.length}`);
  }
}
