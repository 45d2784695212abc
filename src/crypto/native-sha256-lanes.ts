// The SHA-256 of several messages of one length at once, by the OpenSSL that Node carries: the steps of one message wait
// for each other, those of two fill the processor. OpenSSL has this for records of TLS. Knows no trees.

import { createHash, hash } from 'node:crypto';
import koffi from 'koffi';

/** Messages hashed together. */
export const LANES = 8;

/**
 * Writes SHA-256(prefix | message) of LANES messages of one length, which follow each other in data from `start` on, 32 bytes each,
 * to `target` at `at`. prefix: 0 to 255; RangeError where data or target end before that.
 */
export type LanesSha256 = (prefix: number, data: Uint8Array, start: number, target: Uint8Array, at: number) => void;

const DIGEST_BYTES = 32;
const BLOCK_BYTES = 64;
const WORDS = 8;
/** OpenSSL's sha256_multi_block() counts in four lanes. */
const LANE_GROUPS = LANES / 4;
/** What the widest of its registers wants of the address of its state. */
const ALIGNMENT_BYTES = 32;
/** Pointer and number of blocks, padded. */
const INPUT_BYTES = 16;
/** H(0) of FIPS 180-4 §5.3.3. */
const INITIAL = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
] as const;

/**
 * For messages of `messageBytes`, a multiple of 64. Null where this Node or processor has no such function, or another
 * one under its name.
 */
export function nativeSha256Lanes(messageBytes: number): LanesSha256 | null {
  if (process.arch !== 'x64' || !process.versions.openssl?.startsWith('3.')) return null;
  try {
    const library = koffi.load(null);
    const cipher = library.func('uintptr_t EVP_aes_256_cbc_hmac_sha256()') as () => number;
    // what OpenSSL has it for; there is none where the processor has not the instructions
    if (cipher() === 0) return null;
    const hashBlocks = library.func(
      'void sha256_multi_block(uintptr_t state, uintptr_t inputs, int groups)',
    ) as HashBlocks;
    const lanes = lanesOf(hashBlocks, messageBytes);
    return isSha256(lanes, messageBytes) ? lanes : null;
  } catch {
    return null;
  }
}

/** OpenSSL's: goes on from the state of each lane with so many blocks from an address. */
type HashBlocks = (state: number, inputs: number, groups: number) => void;

function lanesOf(hashBlocks: HashBlocks, messageBytes: number): LanesSha256 {
  if (messageBytes < BLOCK_BYTES || messageBytes % BLOCK_BYTES !== 0) {
    throw new RangeError(`messages of ${messageBytes} bytes`);
  }
  const initial = Uint32Array.from({ length: WORDS * LANES }, (_, n) => INITIAL[Math.floor(n / LANES)]!);
  const state = alignedWords(initial.length);
  const stateAddress = addressOf(state);
  const inputs = new Uint32Array(LANES * (INPUT_BYTES / 4));
  const inputsAddress = addressOf(inputs);
  // the prefix moves all bytes by one: a message begins in a block of its own, and its last byte is alone with the padding
  const heads = Buffer.alloc(LANES * BLOCK_BYTES);
  const headsAddress = addressOf(heads);
  const tails = Buffer.alloc(LANES * BLOCK_BYTES);
  const tailsAddress = addressOf(tails);
  for (let tail = 0; tail < tails.length; tail += BLOCK_BYTES) {
    tails[tail + 1] = 0x80;
    tails.writeBigUInt64BE(BigInt(8 * (1 + messageBytes)), tail + BLOCK_BYTES - 8);
  }
  const go = (address: number, stepBytes: number, blocks: number): void => {
    for (let lane = 0; lane < LANES; lane++) {
      const from = address + lane * stepBytes;
      inputs[4 * lane] = from % 2 ** 32;
      inputs[4 * lane + 1] = Math.floor(from / 2 ** 32);
      inputs[4 * lane + 2] = blocks;
    }
    hashBlocks(stateAddress, inputsAddress, LANE_GROUPS);
  };
  return (prefix, data, start, target, at) => {
    const end = start + LANES * messageBytes;
    if (!(start >= 0 && end <= data.length)) throw new RangeError(`bytes ${start} to ${end} of ${data.length}`);
    const digests = new DataView(target.buffer, target.byteOffset + at, LANES * DIGEST_BYTES);
    if (!(at >= 0 && at + digests.byteLength <= target.length))
      throw new RangeError(`digests at ${at} of ${target.length}`);
    for (let lane = 0; lane < LANES; lane++) {
      const from = start + lane * messageBytes;
      heads[lane * BLOCK_BYTES] = prefix;
      heads.set(data.subarray(from, from + BLOCK_BYTES - 1), lane * BLOCK_BYTES + 1);
      tails[lane * BLOCK_BYTES] = data[from + messageBytes - 1]!;
    }
    state.set(initial);
    go(headsAddress, BLOCK_BYTES, 1);
    go(addressOf(data) + start + BLOCK_BYTES - 1, messageBytes, messageBytes / BLOCK_BYTES - 1);
    go(tailsAddress, BLOCK_BYTES, 1);
    for (let lane = 0; lane < LANES; lane++) {
      for (let word = 0; word < WORDS; word++) {
        digests.setUint32(lane * DIGEST_BYTES + 4 * word, state[word * LANES + lane]!);
      }
    }
  };
}

/** Whether it says what node:crypto says: the function is OpenSSL's own, and no version promises it. */
function isSha256(lanes: LanesSha256, messageBytes: number): boolean {
  const messages = createHash('shake256', { outputLength: LANES * messageBytes }).digest();
  const seen = Buffer.alloc(LANES * DIGEST_BYTES);
  lanes(1, messages, 0, seen, 0);
  const expected = Array.from({ length: LANES }, (_, lane) => {
    const message = messages.subarray(lane * messageBytes, (lane + 1) * messageBytes);
    return hash('sha256', Buffer.concat([Buffer.of(1), message]), 'buffer');
  });
  return seen.equals(Buffer.concat(expected));
}

function alignedWords(count: number): Uint32Array {
  const memory = new Uint32Array(count + ALIGNMENT_BYTES / 4);
  const beyond = addressOf(memory) % ALIGNMENT_BYTES;
  const first = beyond === 0 ? 0 : (ALIGNMENT_BYTES - beyond) / 4;
  return memory.subarray(first, first + count);
}

function addressOf(bytes: Uint8Array | Uint32Array): number {
  return Number(koffi.address(bytes));
}
