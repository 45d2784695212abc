// The key schedule: from the recovery phrase to each key of a volume, by readable labels. FORMAT.md, "Key schedule".

import { mnemonicToSeed } from '@scure/bip39';
import { KEY_SIZE_BYTES, subkey } from './hkdf.ts';
import { normalizePhrase } from './phrase.ts';
import { publicKeyOf } from './sign.ts';

/** The keys of one volume, 32 bytes each. */
export interface VolumeKeys {
  /** Ed25519 seed (RFC 8032 private key) that signs log entries. */
  ownerSeed: Buffer;
  /** Ed25519 public key of ownerSeed, by which bridge and hosts know the owner. */
  ownerPublicKey: Buffer;
  /** From which, with a shard's salt, the key of each shard comes. */
  dataKey: Buffer;
  /** Seals log entries. */
  logKey: Buffer;
  /** Hides names in dentry keys. */
  nameKey: Buffer;
  /** Seals values of the local index. */
  indexKey: Buffer;
}

/** Derives every key of the volume that a recovery phrase opens; throws BAD_PHRASE like normalizePhrase. */
export async function deriveVolumeKeys(phrase: string): Promise<VolumeKeys> {
  const seed = await mnemonicToSeed(normalizePhrase(phrase));
  const root = subkey(seed, 'xcore/root/1');
  const ownerSeed = subkey(root, 'xcore/owner/1');
  const keys: VolumeKeys = {
    ownerSeed,
    ownerPublicKey: publicKeyOf(ownerSeed),
    dataKey: subkey(root, 'xcore/data/1'),
    logKey: subkey(root, 'xcore/log/1'),
    nameKey: subkey(root, 'xcore/name/1'),
    indexKey: subkey(root, 'xcore/index/1'),
  };
  seed.fill(0);
  root.fill(0);
  return keys;
}

/** The AES-256 key of the shard with this salt (32 fresh random bytes); both arguments 32 bytes, else RangeError. */
export function shardKey(dataKey: Uint8Array, salt: Uint8Array): Buffer {
  if (dataKey.length !== KEY_SIZE_BYTES) throw new RangeError(`data key of ${dataKey.length} bytes, 32 needed`);
  if (salt.length !== KEY_SIZE_BYTES) throw new RangeError(`shard salt of ${salt.length} bytes, 32 needed`);
  return subkey(dataKey, 'xcore/shard/1', salt);
}
