// Sealed records, AES-256-CTR at an offset and hidden names, against published vectors and @noble.

import t from 'tap';
import { ctr } from '@noble/ciphers/aes.js';
import { hkdf } from '@noble/hashes/hkdf.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { CtrStream, ctrAt } from '../../src/crypto/ctr.ts';
import { hiddenName } from '../../src/crypto/hidden-name.ts';
import { RandomPool } from '../../src/crypto/random-pool.ts';
import { Sealer, SEAL_OVERHEAD_BYTES } from '../../src/crypto/sealer.ts';
import { pickSeed, Random } from '../support/random.ts';

const seed = pickSeed();
const random = new Random(seed);
t.comment(`seed ${seed}`);

const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const utf8 = (text: string): Buffer => Buffer.from(text);
const RECORD_SIZES = [0, 1, 15, 16, 17, 31, 32, 33, 100, 4096, 100_001];

void t.test('records of any size open to what was sealed', async (t) => {
  const sealer = new Sealer(random.bytes(32));
  for (const size of RECORD_SIZES) {
    const [plaintext, associated] = [random.bytes(size), random.bytes(random.below(40))];
    const before = [Buffer.from(plaintext), Buffer.from(associated)];
    const sealed = sealer.seal(plaintext, associated);
    t.equal(sealed.length, size + SEAL_OVERHEAD_BYTES);
    t.same(sealer.open(sealed, associated), plaintext);
    t.same(sealer.open(new Uint8Array(sealed), new Uint8Array(associated)), plaintext, 'plain Uint8Arrays too');
    t.same([plaintext, associated], before, 'arguments stay as they were');
  }
});

void t.test('a sealed record is what FORMAT.md says, by an independent reading', async (t) => {
  for (let round = 0; round < 50; round++) {
    const [key, nonce] = [random.bytes(32), random.bytes(16)];
    const [plaintext, associated] = [random.bytes(random.below(200)), random.bytes(random.below(60))];
    const sealed = new Sealer(key, () => nonce).seal(plaintext, associated);
    const encryptionKey = hkdf(sha256, key, undefined, utf8('xcore/seal/encrypt/1'), 32);
    const macKey = hkdf(sha256, key, undefined, utf8('xcore/seal/authenticate/1'), 32);
    const ciphertext = plaintext.length > 0 ? ctr(encryptionKey, nonce).encrypt(plaintext) : plaintext;
    const record = Buffer.concat([Buffer.from([1]), nonce, ciphertext]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(associated.length);
    const tag = hmac(sha256, macKey, Buffer.concat([length, associated, record])).subarray(0, 16);
    t.same(sealed, Buffer.concat([record, tag]));
    t.same(new Sealer(key).open(sealed, associated), plaintext);
  }
});

void t.test('one changed bit anywhere, or a cut, is CORRUPT_RECORD or, in the version, BAD_FORMAT', async (t) => {
  // The nonce is no version number, so that a record without its first byte is BAD_FORMAT for sure.
  const sealer = new Sealer(random.bytes(32), () => Buffer.alloc(16, 0xaa));
  const associated = utf8('record key');
  const sealed = sealer.seal(random.bytes(50), associated);
  const wrong: string[] = [];
  const expect = (code: string, bytes: Uint8Array, where: string): void => {
    const got = codeOf(() => sealer.open(bytes, associated));
    if (got !== code) wrong.push(`${where}: ${got}`);
  };
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    expect(bit < 8 ? 'BAD_FORMAT' : 'CORRUPT_RECORD', flipped(sealed, bit), `bit ${bit}`);
  }
  for (let size = 0; size < sealed.length; size++) expect('CORRUPT_RECORD', sealed.subarray(0, size), `${size} bytes`);
  expect('CORRUPT_RECORD', Buffer.concat([sealed, Buffer.alloc(1)]), 'a byte more');
  expect('BAD_FORMAT', sealed.subarray(1), 'first byte lost');
  for (const version of [0, 2, 255]) expect('BAD_FORMAT', Buffer.from([version]), `version ${version}`);
  t.same(wrong, []);
});

void t.test('a record opens only with its own associated data and key', async (t) => {
  const key = random.bytes(32);
  const sealer = new Sealer(key);
  const sealed = sealer.seal(utf8('value'), utf8('inode 7'));
  for (const other of ['', 'inode 8', 'inode 7 ', 'inode ', '\0inode 7']) {
    t.equal(
      codeOf(() => sealer.open(sealed, utf8(other))),
      'CORRUPT_RECORD',
    );
  }
  t.equal(
    codeOf(() => new Sealer(random.bytes(32)).open(sealed, utf8('inode 7'))),
    'CORRUPT_RECORD',
  );
  t.same(new Sealer(key).open(sealed, utf8('inode 7')), utf8('value'));
  for (const size of [0, 16, 31, 33]) t.throws(() => new Sealer(random.bytes(size)), RangeError);
  t.throws(() => new Sealer(key, () => Buffer.alloc(12)).seal(utf8('x'), utf8('')), RangeError);
});

void t.test('every nonce is fresh, also over many refills of the pool', async (t) => {
  const sealer = new Sealer(random.bytes(32));
  const nonces = new Set<string>();
  for (let round = 0; round < 5000; round++) {
    nonces.add(sealer.seal(utf8('same'), utf8('same')).toString('latin1', 1, 17));
  }
  t.equal(nonces.size, 5000);
  const pool = new RandomPool();
  const first = pool.take(24);
  const kept = Buffer.from(first);
  const taken = new Set([first.toString('hex')]);
  for (let round = 0; round < 999; round++) taken.add(pool.take(24).toString('hex'));
  t.equal(taken.size, 1000);
  t.same(first, kept, 'what was taken stays as it was');
  t.equal(pool.take(4096).length, 4096);
  for (const size of [-1, 4097, Number.NaN]) t.throws(() => pool.take(size), RangeError);
});

void t.test('AES-256-CTR agrees with the published vectors', async (t) => {
  // NIST SP 800-38A F.5.5; its counter does not start at 0, so it vouches for the oracle below.
  const key = hex('603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4');
  const plaintext = hex(
    '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710',
  );
  t.equal(
    Buffer.from(ctr(key, hex('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff')).encrypt(plaintext)).toString('hex'),
    '601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6',
  );
  // NIST AESAVS B.4, KeySbox 256: block 0 of the key stream is the cipher of the zero block.
  const keySbox = [
    ['c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558', '46f2fb342d6f0ab477476fc501242c5f'],
    ['28d46cffa158533194214a91e712fc2b45b518076675affd910edeca5f41ac64', '4bf3b0a69aeb6657794f2901b1440ad4'],
  ] as const;
  for (const [keyHex, block] of keySbox) {
    t.equal(ctrAt(hex(keyHex), 0, Buffer.alloc(16)).toString('hex'), block);
    t.equal(new CtrStream(hex(keyHex)).encrypt(Buffer.alloc(16)).toString('hex'), block);
  }
});

void t.test('a stream cut anywhere and a read at any offset agree with @noble', async (t) => {
  const key = random.bytes(32);
  const plaintext = random.bytes(300_000);
  const expected = Buffer.from(ctr(key, new Uint8Array(16)).encrypt(plaintext));
  const stream = new CtrStream(key);
  const parts: Buffer[] = [stream.encrypt(Buffer.alloc(0))];
  for (let at = 0; at < plaintext.length;) {
    const size = random.pick([1, 15, 16, 17, 4096, random.below(20_000)]);
    parts.push(stream.encrypt(plaintext.subarray(at, at + size)));
    at += size;
  }
  t.ok(Buffer.concat(parts).equals(expected), 'stream');
  for (let offset = 0; offset <= 33; offset++) {
    for (const size of [0, 1, 15, 16, 17, 32, 50]) {
      const end = offset + size;
      if (!ctrAt(key, offset, expected.subarray(offset, end)).equals(plaintext.subarray(offset, end)))
        t.fail(`offset ${offset}, ${size} bytes`);
    }
  }
  for (let round = 0; round < 300; round++) {
    const offset = random.below(plaintext.length);
    const end = offset + random.below(5000);
    if (!ctrAt(key, offset, plaintext.subarray(offset, end)).equals(expected.subarray(offset, end)))
      t.fail(`offset ${offset} to ${end}`);
  }
});

void t.test('offsets far out use all bits of the counter, impossible ones are refused', async (t) => {
  const key = random.bytes(32);
  const data = random.bytes(100);
  for (const offset of [2 ** 31, 2 ** 36 - 16, 2 ** 36, 2 ** 36 + 5, 2 ** 52, Number.MAX_SAFE_INTEGER]) {
    const counter = Buffer.from((BigInt(offset) / 16n).toString(16).padStart(32, '0'), 'hex');
    const skip = offset % 16;
    const expected = ctr(key, counter)
      .encrypt(Buffer.concat([Buffer.alloc(skip), data]))
      .subarray(skip);
    t.same(ctrAt(key, offset, data), Buffer.from(expected), `offset ${offset}`);
  }
  for (const offset of [-1, 0.5, Number.NaN, 2 ** 53]) t.throws(() => ctrAt(key, offset, data), RangeError);
  for (const size of [16, 31, 33]) t.throws(() => ctrAt(random.bytes(size), 0, data));
});

void t.test('a key array that is overwritten counts as the new key', async (t) => {
  const key = random.bytes(32);
  const data = random.bytes(64);
  const name = hiddenName(key, 1, 'a');
  const ciphertext = ctrAt(key, 0, data);
  const copy = Buffer.from(key);
  key.fill(7);
  t.notSame(hiddenName(key, 1, 'a'), name);
  t.notSame(ctrAt(key, 0, data), ciphertext);
  t.same(ctrAt(Buffer.alloc(32, 7), 0, data), ctrAt(key, 0, data));
  t.same(hiddenName(copy, 1, 'a'), name);
});

void t.test('a hidden name is the cut HMAC of parent and name', async (t) => {
  // RFC 4231 test case 2 vouches for the oracle.
  t.equal(
    Buffer.from(hmac(sha256, utf8('Jefe'), utf8('what do ya want for nothing?'))).toString('hex'),
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  );
  const key = random.bytes(32);
  for (let round = 0; round < 200; round++) {
    const parent = random.pick([0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, random.below(2 ** 32)]);
    const name = random.bytes(random.pick([0, 1, 254, 255, random.below(256)]));
    const head = Buffer.alloc(8);
    head.writeBigUInt64BE(BigInt(parent));
    const expected = hmac(sha256, key, Buffer.concat([head, name])).subarray(0, 16);
    t.same(hiddenName(key, parent, name.toString('latin1')), Buffer.from(expected));
  }
});

void t.test('hidden names tell apart parents, names, case and keys, and refuse what is no byte string', async (t) => {
  const key = random.bytes(32);
  const other = random.bytes(32);
  const all = [
    hiddenName(key, 1, 'a'),
    hiddenName(key, 2, 'a'),
    hiddenName(key, 1 + 2 ** 32, 'a'),
    hiddenName(key, 1, 'A'),
    hiddenName(key, 1, 'a\0'),
    hiddenName(key, 1, ''),
    hiddenName(other, 1, 'a'),
  ];
  t.equal(new Set(all.map((name) => name.toString('hex'))).size, all.length);
  t.same(hiddenName(key, 1, 'a'), all[0]);
  t.throws(() => hiddenName(key, 1, '\u0161'), RangeError);
  t.throws(() => hiddenName(key, 1, 'x'.repeat(256)), RangeError);
  for (const parent of [-1, 1.5, 2 ** 53, Number.NaN]) t.throws(() => hiddenName(key, parent, 'a'), RangeError);
});

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return String((error as { code?: unknown }).code);
  }
  return 'none';
}

function flipped(bytes: Uint8Array, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}
