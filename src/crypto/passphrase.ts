// A secret locked with a passphrase, as the local keystore file holds it. FORMAT.md, "Wrapped secret".

import { randomBytes, scrypt, type ScryptOptions } from 'node:crypto';
import { promisify } from 'node:util';
import { hasCode, XcoreError } from '../lib/errors.ts';
import { KEY_SIZE_BYTES } from './hkdf.ts';
import { Sealer } from './sealer.ts';

const VERSION = 1;
const SALT_SIZE_BYTES = 32;
const HEADER_SIZE_BYTES = 1 + SALT_SIZE_BYTES;

// 128 · N · r bytes are 128 MiB; node's own limit is 32 MiB, and its check counts a little more than N · r.
const SCRYPT: ScryptOptions = { N: 2 ** 17, r: 8, p: 1, maxmem: 160 * 2 ** 20 };

const scryptAsync = promisify<string, Uint8Array, number, ScryptOptions, Buffer>(scrypt);

/** Locks a secret: version | salt | sealed record under the scrypt key, with version and salt as associated data. */
export async function wrapSecret(secret: Uint8Array, passphrase: string): Promise<Buffer> {
  const header = Buffer.concat([Buffer.from([VERSION]), randomBytes(SALT_SIZE_BYTES)]);
  const sealer = await sealerOf(passphrase, header);
  return Buffer.concat([header, sealer.seal(secret, header)]);
}

/** Opens what wrapSecret made; throws BAD_PASSPHRASE when the passphrase (or a byte) is wrong, BAD_FORMAT for an unknown version. */
export async function unwrapSecret(wrapped: Uint8Array, passphrase: string): Promise<Buffer> {
  if (wrapped[0] !== VERSION || wrapped.length < HEADER_SIZE_BYTES) {
    throw new XcoreError('BAD_FORMAT', `not a wrapped secret of version ${VERSION}`);
  }
  const header = Buffer.from(wrapped.subarray(0, HEADER_SIZE_BYTES));
  const sealed = Buffer.from(wrapped.subarray(HEADER_SIZE_BYTES));
  const sealer = await sealerOf(passphrase, header);
  try {
    return sealer.open(sealed, header);
  } catch (error) {
    if (!hasCode(error, 'CORRUPT_RECORD')) throw error;
    throw new XcoreError('BAD_PASSPHRASE', 'the passphrase is wrong, or the keystore is damaged', { cause: error });
  }
}

async function sealerOf(passphrase: string, header: Uint8Array): Promise<Sealer> {
  // NFKD, as BIP39 does: keyboards differ in how they compose a letter.
  const salt = header.subarray(1);
  return new Sealer(await scryptAsync(passphrase.normalize('NFKD'), salt, KEY_SIZE_BYTES, SCRYPT));
}
