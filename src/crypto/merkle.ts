// Shard ids: the Merkle tree of RFC 6962 §2.1 over 16 KiB leaves, bound to the shard's length, and
// proofs for ranges of leaves. Pure functions on bytes; all proofs are taken for hostile.

import { hash } from 'node:crypto';
import { nativeSha256 } from './native-sha256.ts';
import type { PrefixedSha256 } from './native-sha256.ts';
import { LANES, nativeSha256Lanes } from './native-sha256-lanes.ts';

/** Size in bytes of every leaf but a shard's last, which may be shorter. */
export const LEAF_SIZE_BYTES = 16384;

/** The largest shard: 2 MiB, 128 leaves. */
export const MAX_SHARD_SIZE_BYTES = 2_097_152;

/** Length in bytes of leaf hashes, tree nodes and shard ids (SHA-256). */
export const HASH_SIZE_BYTES = 32;

/** Two nodes, which one above them stands for. */
const PAIR_BYTES = 2 * HASH_SIZE_BYTES;

const LEAF_PREFIX = 0x00;
const NODE_PREFIX = 0x01;
const ID_PREFIX = 0x02;

// Reused between calls: nothing here runs while another call is half-way.
const nodeInput = Buffer.alloc(PAIR_BYTES);
const boundInput = Buffer.alloc(8 + HASH_SIZE_BYTES);

/** The same by node:crypto. */
const slowSha256: PrefixedSha256 = (prefix, data, start, length, target, at) => {
  const input = Buffer.concat([Buffer.of(prefix), data.subarray(start, start + length)]);
  target.set(hash('sha256', input, 'buffer'), at);
};

const sha256: PrefixedSha256 = nativeSha256() ?? slowSha256;
/** As many leaves, or pairs of nodes, at once: in less than two thirds of the time. */
const sha256Leaves = nativeSha256Lanes(LEAF_SIZE_BYTES);
const sha256Pairs = nativeSha256Lanes(PAIR_BYTES);

/** Number of leaves of a shard; RangeError unless sizeBytes is 1 to 2,097,152. */
export function leafCountOf(sizeBytes: number): number {
  if (!isShardSize(sizeBytes))
    throw new RangeError(`shard of ${sizeBytes} bytes, 1 to ${MAX_SHARD_SIZE_BYTES} allowed`);
  return Math.ceil(sizeBytes / LEAF_SIZE_BYTES);
}

/** SHA-256(0x00 | leaf), 32 bytes; RangeError for a leaf over 16 KiB. */
export function leafHash(leaf: Uint8Array): Buffer {
  if (leaf.length > LEAF_SIZE_BYTES) throw new RangeError(`leaf of ${leaf.length} bytes, at most ${LEAF_SIZE_BYTES}`);
  const result = Buffer.allocUnsafe(HASH_SIZE_BYTES);
  sha256(LEAF_PREFIX, leaf, 0, leaf.length, result, 0);
  return result;
}

/** The leaf hashes of a shard, 32 bytes for each leaf, in order; RangeError unless data has 1 to 2,097,152 bytes. */
export function leafHashes(data: Uint8Array): Buffer {
  const hashes = Buffer.allocUnsafe(leafCountOf(data.length) * HASH_SIZE_BYTES);
  leafHashesInto(data, data.length, hashes);
  return hashes;
}

/** Writes the leaf hashes of the first `sizeBytes` of data, which begin at a leaf, to `target`. */
export function leafHashesInto(data: Uint8Array, sizeBytes: number, target: Uint8Array): void {
  let [start, at] = [0, 0];
  if (sha256Leaves !== null) {
    for (; start + LANES * LEAF_SIZE_BYTES <= sizeBytes; start += LANES * LEAF_SIZE_BYTES) {
      sha256Leaves(LEAF_PREFIX, data, start, target, at);
      at += LANES * HASH_SIZE_BYTES;
    }
  }
  for (; start < sizeBytes; start += LEAF_SIZE_BYTES, at += HASH_SIZE_BYTES) {
    sha256(LEAF_PREFIX, data, start, Math.min(LEAF_SIZE_BYTES, sizeBytes - start), target, at);
  }
}

/** The tree root over concatenated leaf hashes: MTH of RFC 6962 §2.1; RangeError without leaves. */
export function merkleRoot(leaves: Uint8Array): Buffer {
  hashCountOf(leaves);
  let top = leaves;
  while (top.length > HASH_SIZE_BYTES) top = levelAbove(top);
  return Buffer.from(top);
}

/** The id of a shard: SHA-256(0x02 | sizeBytes as 8 bytes big-endian | tree root), 32 bytes. */
export function shardIdOf(leaves: Uint8Array, sizeBytes: number): Buffer {
  if (leaves.length !== leafCountOf(sizeBytes) * HASH_SIZE_BYTES) {
    throw new RangeError(`${leaves.length} bytes of leaf hashes do not fit a shard of ${sizeBytes} bytes`);
  }
  return boundId(merkleRoot(leaves), sizeBytes);
}

/** All nodes of a tree, level by level from the leaf hashes up to the root, 32 bytes each; a node without a sibling is on the next level as it is. */
export type MerkleTree = readonly Buffer[];

/** The tree over concatenated leaf hashes, which it keeps; RangeError without leaves. */
export function merkleTree(leaves: Buffer): MerkleTree {
  hashCountOf(leaves);
  const tree = [leaves];
  for (let below = leaves; below.length > HASH_SIZE_BYTES;) {
    below = levelAbove(below);
    tree.push(below);
  }
  return tree;
}

/** As proofOf(), from concatenated leaf hashes. */
export function rangeProof(leaves: Buffer, firstLeaf: number, leafCount: number): Buffer[] {
  return proofOf(merkleTree(leaves), firstLeaf, leafCount);
}

/** The id of the shard whose tree this is, as shardIdOf(). */
export function shardIdOfTree(tree: MerkleTree, sizeBytes: number): Buffer {
  if (tree[0]?.length !== leafCountOf(sizeBytes) * HASH_SIZE_BYTES) {
    throw new RangeError(`the tree is not one of ${sizeBytes} bytes`);
  }
  return boundId(tree.at(-1)!, sizeBytes);
}

/**
 * The tree nodes that, with the leaves firstLeaf to firstLeaf + leafCount - 1, give the root; at most
 * 12, in the tree's memory. For one leaf it is the audit path of RFC 6962 §2.1.1. RangeError for leaves that do not exist.
 */
export function proofOf(tree: MerkleTree, firstLeaf: number, leafCount: number): Buffer[] {
  const total = hashCountOf(tree[0] ?? Buffer.alloc(0));
  if (!isRange(firstLeaf, leafCount, total)) {
    throw new RangeError(`leaves ${firstLeaf} + ${leafCount} of ${total} leaves`);
  }
  const proof: Buffer[] = [];
  const descend = (start: number, end: number): void => {
    if (firstLeaf <= start && end <= firstLeaf + leafCount) return;
    const middle = start + splitOf(end - start);
    // Deepest node first, as in an audit path.
    if (firstLeaf < middle) descend(start, middle);
    if (firstLeaf + leafCount > middle) descend(middle, end);
    if (firstLeaf >= middle) proof.push(nodeOf(tree, start, middle));
    if (firstLeaf + leafCount <= middle) proof.push(nodeOf(tree, middle, end));
  };
  descend(0, total);
  return proof;
}

/**
 * The root that a range of leaf hashes and its proof lead to in a tree of `total` leaves, or null if
 * the proof has not exactly the nodes that this range needs.
 */
export function rootOfRange(
  total: number,
  firstLeaf: number,
  leaves: Uint8Array,
  proof: readonly Uint8Array[],
): Buffer | null {
  const leafCount = leaves.length / HASH_SIZE_BYTES;
  if (!isRange(firstLeaf, leafCount, total)) return null;
  if (proof.some((node) => node.length !== HASH_SIZE_BYTES)) return null;
  const endLeaf = firstLeaf + leafCount;
  let used = 0;
  const ascend = (start: number, end: number): Uint8Array | undefined => {
    if (firstLeaf <= start && end <= endLeaf) return subtreeRoot(leaves, start - firstLeaf, end - firstLeaf);
    const middle = start + splitOf(end - start);
    const left = firstLeaf < middle ? ascend(start, middle) : undefined;
    const right = endLeaf > middle ? ascend(middle, end) : undefined;
    const sibling = left === undefined || right === undefined ? proof[used++] : undefined;
    const [first, second] = [left ?? sibling, right ?? sibling];
    return first === undefined || second === undefined ? undefined : nodeHash(first, second);
  };
  const root = ascend(0, total);
  return root === undefined || used !== proof.length ? null : Buffer.from(root);
}

/**
 * Whether data is exactly the bytes of whole leaves from firstLeaf on (the shard's last may be short)
 * of the shard with this id and size. Anything malformed, of whatever kind, is false.
 */
export function verifyRange(
  id: Uint8Array,
  sizeBytes: number,
  firstLeaf: number,
  data: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  if (!isShardSize(sizeBytes) || data.length < 1 || data.length > sizeBytes) return false;
  const total = leafCountOf(sizeBytes);
  const leafCount = Math.ceil(data.length / LEAF_SIZE_BYTES);
  if (!isRange(firstLeaf, leafCount, total)) return false;
  const start = firstLeaf * LEAF_SIZE_BYTES;
  if (data.length !== Math.min(sizeBytes, start + leafCount * LEAF_SIZE_BYTES) - start) return false;
  const root = rootOfRange(total, firstLeaf, leafHashes(data), proof);
  return root !== null && boundId(root, sizeBytes).equals(id);
}

/** The leaf hashes of a whole shard if its bytes are those that the id names, else null. */
export function verifyShard(id: Uint8Array, data: Uint8Array): Buffer | null {
  if (!isShardSize(data.length)) return null;
  const leaves = leafHashes(data);
  return shardIdOf(leaves, data.length).equals(id) ? leaves : null;
}

function isShardSize(sizeBytes: number): boolean {
  return Number.isInteger(sizeBytes) && sizeBytes >= 1 && sizeBytes <= MAX_SHARD_SIZE_BYTES;
}

function isRange(first: number, count: number, total: number): boolean {
  return Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count >= 1 && first + count <= total;
}

function hashCountOf(leaves: Uint8Array): number {
  const count = leaves.length / HASH_SIZE_BYTES;
  if (count < 1 || !Number.isInteger(count)) throw new RangeError(`${leaves.length} bytes of leaf hashes`);
  return count;
}

/** The largest power of two below count, for a count of at least 2. */
function splitOf(count: number): number {
  return 2 ** (31 - Math.clz32(count - 1));
}

/** The node over leaves start to end - 1, as splitOf() cuts them. */
function nodeOf(tree: MerkleTree, start: number, end: number): Buffer {
  const level = 32 - Math.clz32(end - start - 1);
  const at = (start >> level) * HASH_SIZE_BYTES;
  return tree[level]!.subarray(at, at + HASH_SIZE_BYTES);
}

/** The nodes above those of one level of a tree. */
function levelAbove(below: Uint8Array): Buffer {
  const level = Buffer.allocUnsafe(HASH_SIZE_BYTES * Math.ceil(below.length / PAIR_BYTES));
  let [start, at] = [0, 0];
  if (sha256Pairs !== null) {
    for (; start + LANES * PAIR_BYTES <= below.length; start += LANES * PAIR_BYTES, at += LANES * HASH_SIZE_BYTES) {
      sha256Pairs(NODE_PREFIX, below, start, level, at);
    }
  }
  for (; start + PAIR_BYTES <= below.length; start += PAIR_BYTES, at += HASH_SIZE_BYTES) {
    sha256(NODE_PREFIX, below, start, PAIR_BYTES, level, at);
  }
  // one without a sibling
  if (start < below.length) level.set(below.subarray(start), at);
  return level;
}

function subtreeRoot(leaves: Uint8Array, start: number, end: number): Buffer {
  const own = leaves.subarray(start * HASH_SIZE_BYTES, end * HASH_SIZE_BYTES);
  if (end - start === 1) return Buffer.from(own);
  const middle = start + splitOf(end - start);
  return nodeHash(subtreeRoot(leaves, start, middle), subtreeRoot(leaves, middle, end));
}

function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  nodeInput.set(left, 0);
  nodeInput.set(right, HASH_SIZE_BYTES);
  const result = Buffer.allocUnsafe(HASH_SIZE_BYTES);
  sha256(NODE_PREFIX, nodeInput, 0, nodeInput.length, result, 0);
  return result;
}

function boundId(root: Uint8Array, sizeBytes: number): Buffer {
  boundInput.writeUIntBE(sizeBytes, 2, 6);
  boundInput.set(root, 8);
  const result = Buffer.allocUnsafe(HASH_SIZE_BYTES);
  sha256(ID_PREFIX, boundInput, 0, boundInput.length, result, 0);
  return result;
}
