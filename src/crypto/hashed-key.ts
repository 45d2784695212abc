// Questions that only who has a whole shard can answer, and whose answers can be checked without having it: a challenge,
// and the hash of the answer to it. Pure functions on bytes.

import { createHash, hash, randomBytes } from 'node:crypto';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { Hash } from 'node:crypto';

/** Length in bytes of a challenge. */
export const CHALLENGE_BYTES = 16;

const LABEL = Buffer.from('xcore/answer/1\0');
const HASH_BYTES = 32;

/** A challenge, 16 bytes, and the SHA-256 of the answer to it. */
export interface HashedKey {
  readonly challenge: Uint8Array;
  readonly commitment: Uint8Array;
}

/**
 * What gives the answer to a challenge once the shard's bytes have been fed to it, in order: SHA-256 of "xcore/answer/1" | NUL |
 * challenge | shard. The challenge stands before the bytes, so nothing that was computed without it is of any use.
 */
export function beginAnswer(challenge: Uint8Array): Hash {
  return createHash('sha256').update(LABEL).update(challenge);
}

/** Fresh hashed keys of a shard. */
export function mintHashedKeys(shard: Uint8Array, count: number, random: RandomBytes = randomBytes): HashedKey[] {
  return Array.from({ length: count }, () => {
    const challenge = random(CHALLENGE_BYTES);
    return { challenge, commitment: hash('sha256', beginAnswer(challenge).update(shard).digest(), 'buffer') };
  });
}

/** Whether an answer is the one that the commitment was made for; false for what is malformed. */
export function isAnswer(answer: Uint8Array, commitment: Uint8Array): boolean {
  return answer.length === HASH_BYTES && hash('sha256', answer, 'buffer').equals(commitment);
}
