// The AES-256-CTR of the OpenSSL that Node carries, from memory to memory: node:crypto makes an object and a new
// buffer for each call, which costs ten times the work on 4 KiB and four times on 1 MiB. Knows no shards.

import koffi from 'koffi';

/** Encrypts or decrypts `data` into `target`, which has at least its length; key 32 bytes, iv 16. */
export type CtrCall = (key: Uint8Array, iv: Uint8Array, data: Uint8Array, target: Uint8Array) => void;

const OK = 1;

/** OpenSSL's functions as exported by this Node, or null where it hides them. */
export function nativeCtr(): CtrCall | null {
  try {
    const library = koffi.load(null);
    const make = library.func('uintptr_t EVP_CIPHER_CTX_new()') as () => number;
    const cipher = library.func('uintptr_t EVP_aes_256_ctr()') as () => number;
    const init = library.func(
      'int EVP_EncryptInit_ex(uintptr_t context, uintptr_t cipher, uintptr_t engine, uintptr_t key, uintptr_t iv)',
    ) as (context: number, cipher: number, engine: number, key: number, iv: number) => number;
    const update = library.func(
      'int EVP_EncryptUpdate(uintptr_t context, uintptr_t out, uintptr_t outBytes, uintptr_t data, int dataBytes)',
    ) as (context: number, out: number, outBytes: number, data: number, dataBytes: number) => number;
    const address = (bytes: Uint8Array): number => Number(koffi.address(bytes));
    // one for the life of the thread: every call sets key and counter anew
    const context = make();
    if (context === 0 || init(context, cipher(), 0, 0, 0) !== OK) return null;
    const written = Buffer.allocUnsafeSlow(4);
    const writtenAddress = address(written);
    return (key, iv, data, target) => {
      if (target.length < data.length) throw new RangeError(`${data.length} bytes into ${target.length}`);
      if (data.length === 0) return;
      const isDone =
        init(context, 0, 0, address(key), address(iv)) === OK &&
        update(context, address(target), writtenAddress, address(data), data.length) === OK;
      if (!isDone || written.readInt32LE(0) !== data.length) throw new Error('OpenSSL refused to encrypt');
    };
  } catch {
    return null;
  }
}
