// Shard ids and range proofs: RFC 6962 trees as certificate-transparency publishes them, a second
// implementation on @noble, and proofs that lie.

import t from 'tap';
import { sha256 } from '@noble/hashes/sha2.js';
import {
  LEAF_SIZE_BYTES,
  MAX_SHARD_SIZE_BYTES,
  leafCountOf,
  leafHash,
  leafHashes,
  merkleRoot,
  merkleTree,
  rangeProof,
  rootOfRange,
  shardIdOf,
  shardIdOfTree,
  verifyRange,
  verifyShard,
} from '../../src/crypto/merkle.ts';
import { LANES, nativeSha256Lanes } from '../../src/crypto/native-sha256-lanes.ts';
import { pickSeed, Random } from '../support/random.ts';

const seed = pickSeed();
const random = new Random(seed);
t.comment(`seed ${seed}`);

const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const ZERO = Buffer.alloc(32);

// google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc: leaves, the roots of the
// first n of them, and audit paths as (leaf from 0, tree size, path).
const CT_LEAVES = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'];
const CT_ROOTS = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];
const CT_PATHS: readonly (readonly [number, number, readonly string[]])[] = [
  [0, 1, []],
  [
    0,
    8,
    [
      '96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
      '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
      '6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4',
    ],
  ],
  [
    5,
    8,
    [
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
      'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ],
  ],
  [2, 3, ['fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125']],
  [
    1,
    5,
    [
      '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
      '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
    ],
  ],
];

/** RFC 6962 §2.1 word for word, on @noble. */
function oracleRoot(leaves: readonly Uint8Array[]): Uint8Array {
  if (leaves.length === 1) return leaves[0]!;
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  return sha256(Buffer.concat([Buffer.from([1]), oracleRoot(leaves.slice(0, split)), oracleRoot(leaves.slice(split))]));
}

function oracleLeaves(data: Buffer): Uint8Array[] {
  const leaves: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += LEAF_SIZE_BYTES) {
    leaves.push(sha256(Buffer.concat([Buffer.from([0]), data.subarray(at, at + LEAF_SIZE_BYTES)])));
  }
  return leaves;
}

function oracleId(data: Buffer): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(BigInt(data.length));
  return Buffer.from(sha256(Buffer.concat([Buffer.from([2]), size, oracleRoot(oracleLeaves(data))])));
}

/** The bytes of `count` leaves of a shard from leaf `first` on. */
function leafBytes(data: Buffer, first: number, count: number): Buffer {
  return data.subarray(first * LEAF_SIZE_BYTES, (first + count) * LEAF_SIZE_BYTES);
}

function flipped(bytes: Uint8Array, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

void t.test('trees and audit paths are those of certificate transparency', async (t) => {
  const leaves = Buffer.concat(CT_LEAVES.map((leaf) => leafHash(hex(leaf))));
  for (const [index, root] of CT_ROOTS.entries()) {
    t.equal(merkleRoot(leaves.subarray(0, (index + 1) * 32)).toString('hex'), root, `${index + 1} leaves`);
  }
  for (const [leaf, size, path] of CT_PATHS) {
    const proof = rangeProof(leaves.subarray(0, size * 32), leaf, 1);
    t.same(
      proof.map((node) => node.toString('hex')),
      path,
      `leaf ${leaf} of ${size}`,
    );
    const root = rootOfRange(size, leaf, leaves.subarray(leaf * 32, leaf * 32 + 32), proof);
    t.equal(root?.toString('hex'), CT_ROOTS[size - 1]);
  }
});

void t.test('ids of shards of every interesting size agree with @noble', async (t) => {
  const L = LEAF_SIZE_BYTES;
  const sizes = [
    1,
    2,
    L - 1,
    L,
    L + 1,
    2 * L - 1,
    2 * L,
    2 * L + 1,
    3 * L,
    5 * L + 7,
    8 * L,
    8 * L + 1,
    17 * L - 1,
    127 * L,
    MAX_SHARD_SIZE_BYTES - 1,
  ];
  for (const size of [...sizes, MAX_SHARD_SIZE_BYTES, random.between(1, MAX_SHARD_SIZE_BYTES)]) {
    const data = random.bytes(size);
    const leaves = leafHashes(data);
    t.same(leaves, Buffer.concat(oracleLeaves(data)));
    const id = shardIdOf(leaves, size);
    t.same(id, oracleId(data), `${size} bytes`);
    t.same(shardIdOfTree(merkleTree(leaves), size), id);
    t.same(verifyShard(id, data), leaves);
  }
});

void t.test('messages hashed together have the hashes of each', async (t) => {
  const cases = [64, 128, LEAF_SIZE_BYTES].flatMap((size) => {
    const lanes = nativeSha256Lanes(size);
    return lanes === null ? [] : [{ size, lanes }];
  });
  if (cases.length === 0) t.comment('this Node or processor has none');
  for (const { size, lanes } of cases) {
    const shared = Buffer.from(new SharedArrayBuffer(2 + LANES * size));
    shared.set(random.bytes(shared.length));
    for (const data of [random.bytes(2 + LANES * size), shared]) {
      for (const [prefix, start] of [
        [0, 0],
        [1, 1],
        [255, 2],
      ] as const) {
        const target = Buffer.alloc(LANES * 32 + 3);
        lanes(prefix, data, start, target, 2);
        const expected = Array.from({ length: LANES }, (_, lane) =>
          sha256(Buffer.concat([Buffer.of(prefix), data.subarray(start + lane * size, start + (lane + 1) * size)])),
        );
        t.same(target, Buffer.concat([Buffer.alloc(2), ...expected, Buffer.alloc(1)]), `${size} bytes from ${start}`);
      }
      const target = Buffer.alloc(LANES * 32);
      for (const start of [-1, 3]) t.throws(() => lanes(0, data, start, target, 0), RangeError);
      for (const at of [-1, 1]) t.throws(() => lanes(0, data, 0, target, at), RangeError);
      t.throws(() => lanes(0, data, 0, Buffer.alloc(1024).subarray(0, 255), 0), RangeError);
    }
  }
  for (const size of [0, 63, 65]) t.equal(nativeSha256Lanes(size), null, `${size} bytes are none of its lengths`);
});

void t.test('leaf counts and sizes out of range', async (t) => {
  const L = LEAF_SIZE_BYTES;
  t.equal(MAX_SHARD_SIZE_BYTES, 128 * L);
  t.same([1, L - 1, L, L + 1, 2 * L, 2 * L + 1].map(leafCountOf), [1, 1, 1, 2, 2, 3]);
  t.equal(leafCountOf(MAX_SHARD_SIZE_BYTES), 128);
  for (const size of [0, -1, 1.5, Number.NaN, MAX_SHARD_SIZE_BYTES + 1]) t.throws(() => leafCountOf(size), RangeError);
  t.throws(() => leafHashes(Buffer.alloc(0)), RangeError);
  t.throws(() => leafHashes(Buffer.alloc(MAX_SHARD_SIZE_BYTES + 1)), RangeError);
  t.throws(() => leafHash(Buffer.alloc(L + 1)), RangeError);
  t.throws(() => merkleRoot(Buffer.alloc(0)), RangeError);
  t.throws(() => merkleRoot(Buffer.alloc(33)), RangeError);
  const leaves = leafHashes(Buffer.alloc(3 * L));
  for (const size of [0, 2 * L, 3 * L + 1, MAX_SHARD_SIZE_BYTES + 1]) {
    t.throws(() => shardIdOf(leaves, size), RangeError);
    t.throws(() => shardIdOfTree(merkleTree(leaves), size), RangeError);
  }
  for (const [first, count] of [
    [0, 0],
    [-1, 1],
    [3, 1],
    [2, 2],
    [0, 4],
    [0.5, 1],
    [0, 1.5],
    [Number.NaN, 1],
  ] as const)
    t.throws(() => rangeProof(leaves, first, count), RangeError);
});

void t.test('every range of trees of many sizes leads to the root, and to no other', async (t) => {
  const wrong: string[] = [];
  let longest = 0;
  for (const total of [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 31, 33, 100, 127, 128]) {
    const leaves = random.bytes(total * 32);
    const root = merkleRoot(leaves);
    for (let first = 0; first < total; first++) {
      for (let count = 1; first + count <= total; count++) {
        const proof = rangeProof(leaves, first, count);
        longest = Math.max(longest, proof.length);
        const own = leaves.subarray(first * 32, (first + count) * 32);
        const where = `${first} + ${count} of ${total}`;
        if (rootOfRange(total, first, own, proof)?.equals(root) !== true) wrong.push(where);
        if (total > 20) continue;
        if (rootOfRange(total, first, own, [...proof, ZERO]) !== null) wrong.push(`${where}: a node too many`);
        if (proof.length > 0 && rootOfRange(total, first, own, proof.slice(1)) !== null) wrong.push(`${where}: short`);
        for (let other = 0; other + count <= total; other++) {
          const moved = other !== first && rootOfRange(total, other, own, proof)?.equals(root);
          if (moved === true) wrong.push(`${where}: passes as ${other}`);
        }
      }
    }
  }
  t.same(wrong, []);
  t.equal(longest, 12);
});

void t.test('ranges of real shards verify, at the start, in the middle, at the short end and whole', async (t) => {
  for (const size of [1, 16384, 16385, 5 * 16384, 7 * 16384 + 1, 12 * 16384 - 1, MAX_SHARD_SIZE_BYTES]) {
    const data = random.bytes(size);
    const leaves = leafHashes(data);
    const id = shardIdOf(leaves, size);
    const total = leafCountOf(size);
    const ranges = new Set<string>();
    for (const first of [0, 1, total - 2, total - 1]) {
      for (const count of [1, 2, total - first - 1, total - first]) {
        if (first >= 0 && count >= 1 && first + count <= total) ranges.add(`${first} ${count}`);
      }
    }
    for (const range of ranges) {
      const [first = 0, count = 0] = range.split(' ').map(Number);
      const proof = rangeProof(leaves, first, count);
      t.ok(verifyRange(id, size, first, leafBytes(data, first, count), proof), `${first} + ${count} of ${size} bytes`);
    }
  }
});

void t.test('one changed bit in data, proof or id, or another size, is false', async (t) => {
  const size = 6 * LEAF_SIZE_BYTES + 100;
  const data = random.bytes(size);
  const leaves = leafHashes(data);
  const id = shardIdOf(leaves, size);
  for (const [first, count] of [
    [2, 3],
    [6, 1],
    [0, 1],
    [5, 2],
  ] as const) {
    const own = leafBytes(data, first, count);
    const proof = rangeProof(leaves, first, count);
    t.ok(verifyRange(id, size, first, own, proof));
    const passed: string[] = [];
    const never = (what: string, verified: boolean): void => {
      if (verified) passed.push(what);
    };
    for (const bit of [0, 7, own.length * 4, own.length * 8 - 1, random.below(own.length * 8)])
      never(`data bit ${bit}`, verifyRange(id, size, first, flipped(own, bit), proof));
    for (let node = 0; node < proof.length; node++) {
      for (const bit of [0, 100, 255]) {
        const lie = proof.map((hash, index) => (index === node ? flipped(hash, bit) : hash));
        never(`node ${node} bit ${bit}`, verifyRange(id, size, first, own, lie));
      }
    }
    for (let bit = 0; bit < 256; bit++) never(`id bit ${bit}`, verifyRange(flipped(id, bit), size, first, own, proof));
    for (const other of [size - 1, size + 1, size - LEAF_SIZE_BYTES, 7 * LEAF_SIZE_BYTES])
      never(`size ${other}`, verifyRange(id, other, first, own, proof));
    t.same(passed, []);
  }
});

void t.test('hostile proofs, lengths and positions are false and never an exception', async (t) => {
  const size = 5 * LEAF_SIZE_BYTES + 9;
  const data = random.bytes(size);
  const leaves = leafHashes(data);
  const id = shardIdOf(leaves, size);
  const own = leafBytes(data, 1, 2);
  const proof = rangeProof(leaves, 1, 2);
  t.ok(verifyRange(id, size, 1, own, proof));
  const proofs: Uint8Array[][] = [
    [],
    proof.slice(1),
    proof.slice(0, -1),
    [...proof, ZERO],
    [ZERO, ...proof],
    [...proof].reverse(),
    proof.map((hash) => hash.subarray(1)),
    proof.map((hash) => Buffer.concat([hash, Buffer.alloc(1)])),
    proof.map(() => Buffer.alloc(0)),
    Array.from({ length: 100_000 }, () => ZERO),
    Array.from({ length: 3 }, () => random.bytes(1_000_000)),
  ];
  for (const [index, lie] of proofs.entries()) t.equal(verifyRange(id, size, 1, own, lie), false, `proof ${index}`);
  const lengths = [0, 1, own.length - 1, own.length + 1, own.length - LEAF_SIZE_BYTES, size, size + 1];
  for (const length of lengths) {
    t.equal(
      verifyRange(id, size, 1, data.subarray(LEAF_SIZE_BYTES, LEAF_SIZE_BYTES + length), proof),
      false,
      `${length}`,
    );
    t.equal(verifyRange(id, size, 1, Buffer.alloc(length), proof), false);
  }
  for (const first of [-1, 0, 2, 4, 5, 6, 0.5, Number.NaN, Number.MAX_SAFE_INTEGER])
    t.equal(verifyRange(id, size, first, own, proof), false, `first leaf ${first}`);
  for (const bad of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, MAX_SHARD_SIZE_BYTES + 1, 2 ** 53])
    t.equal(verifyRange(id, bad, 1, own, proof), false, `size ${bad}`);
  for (const length of [0, 31, 33]) t.equal(verifyRange(random.bytes(length), size, 1, own, proof), false);
  // A short leaf passes only at the end.
  const last = leafBytes(data, 5, 1);
  const lastProof = rangeProof(leaves, 5, 1);
  t.ok(verifyRange(id, size, 5, last, lastProof));
  t.notOk(verifyRange(id, size, 4, last, lastProof));
  t.notOk(verifyRange(id, size, 5, last.subarray(1), lastProof));
  t.notOk(verifyRange(id, size, 5, Buffer.concat([last, Buffer.alloc(1)]), lastProof));
});

void t.test('an inner node never passes for a leaf, nor one shard for another with the same root', async (t) => {
  const data = random.bytes(4 * LEAF_SIZE_BYTES);
  const leaves = leafHashes(data);
  const pair = Buffer.concat([leaves.subarray(0, 32), leaves.subarray(32, 64)]);
  const upper = Buffer.concat([merkleRoot(leaves.subarray(0, 64)), merkleRoot(leaves.subarray(64))]);
  t.notSame(leafHash(pair), merkleRoot(leaves.subarray(0, 64)));
  t.same(merkleRoot(upper), merkleRoot(leaves), 'the roots are equal');
  t.notSame(shardIdOf(upper, 2 * LEAF_SIZE_BYTES), shardIdOf(leaves, data.length), 'the ids are not');
});

void t.test('a tree made with a short leaf in the middle or a long last one does not verify', async (t) => {
  const L = LEAF_SIZE_BYTES;
  const short = random.bytes(100);
  const whole = random.bytes(L);
  const leaves = Buffer.concat([leafHash(short), leafHash(whole)]);
  const id = shardIdOf(leaves, L + 100);
  t.notOk(verifyRange(id, L + 100, 0, short, rangeProof(leaves, 0, 1)));
  t.notOk(verifyRange(id, L + 100, 1, whole, rangeProof(leaves, 1, 1)));
});

void t.test('a whole shard with one bit, one byte or the id changed is null', async (t) => {
  const data = random.bytes(3 * LEAF_SIZE_BYTES + 5);
  const id = shardIdOf(leafHashes(data), data.length);
  for (const bit of [0, data.length * 8 - 1, random.below(data.length * 8)])
    t.equal(verifyShard(id, flipped(data, bit)), null);
  t.equal(verifyShard(flipped(id, 3), data), null);
  t.equal(verifyShard(id, data.subarray(1)), null);
  t.equal(verifyShard(id, data.subarray(0, -1)), null);
  t.equal(verifyShard(id, Buffer.concat([data, Buffer.alloc(1)])), null);
  t.equal(verifyShard(id, Buffer.alloc(0)), null);
  t.equal(verifyShard(id, Buffer.alloc(MAX_SHARD_SIZE_BYTES + 1)), null);
  t.equal(verifyShard(Buffer.alloc(0), data), null);
});
