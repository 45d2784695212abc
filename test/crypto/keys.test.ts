// Recovery phrase, key schedule, signatures and the passphrase lock, against published vectors and @noble.

import t from 'tap';
import { ctr } from '@noble/ciphers/aes.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { hkdf } from '@noble/hashes/hkdf.js';
import { hmac } from '@noble/hashes/hmac.js';
import { pbkdf2 } from '@noble/hashes/pbkdf2.js';
import { scrypt } from '@noble/hashes/scrypt.js';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { entropyToMnemonic, mnemonicToSeedSync } from '@scure/bip39';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import { subkey } from '../../src/crypto/hkdf.ts';
import { deriveVolumeKeys, shardKey } from '../../src/crypto/keys.ts';
import { unwrapSecret, wrapSecret } from '../../src/crypto/passphrase.ts';
import { generatePhrase, normalizePhrase } from '../../src/crypto/phrase.ts';
import { publicKeyOf, sign, verify } from '../../src/crypto/sign.ts';
import { pickSeed, Random } from '../support/random.ts';

const seed = pickSeed();
const random = new Random(seed);
t.comment(`seed ${seed}`);

const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const utf8 = (text: string): Buffer => Buffer.from(text);

function codeAndMessage(action: () => unknown): { code: string; message: string } {
  try {
    action();
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message };
  }
  return { code: 'none', message: '' };
}

// The 24-word vectors of trezor/python-mnemonic, vectors.json: entropy, words, seed with passphrase TREZOR.
const BIP39: readonly (readonly [string, string, string])[] = [
  [
    '00'.repeat(32),
    `${'abandon '.repeat(23)}art`,
    'bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3de6f5d4a10be8ed2a5e608d68f92fcc8',
  ],
  [
    '7f'.repeat(32),
    'legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title',
    'bc09fca1804f7e69da93c2f2028eb238c227f2e9dda30cd63699232578480a4021b146ad717fbb7e451ce9eb835f43620bf5c514db0f8add49f5d121449d3e87',
  ],
  [
    '80'.repeat(32),
    'letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless',
    'c0c519bd0e91a2ed54357d9d1ebef6f5af218a153624cf4f2da911a0ed8f7a09e2ef61af0aca007096df430022f7a2b6fb91661a9589097069720d015e4e982f',
  ],
  [
    'ff'.repeat(32),
    `${'zoo '.repeat(23)}vote`,
    'dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad',
  ],
  [
    '68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c',
    'hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel tennis maple dilemma loan word shrug inflict delay length',
    '64c87cde7e12ecf6704ab95bb1408bef047c22db4cc7491c4271d170a1b213d20b385bc1588d9c7b38f1b39d415665b8a9030c9ec653d75e65f847d8fc1fc440',
  ],
  [
    '9f6a2878b2520799a44ef18bc7df394e7061a224d2c33cd015b157d746869863',
    'panda eyebrow bullet gorilla call smoke muffin taste mesh discover soft ostrich alcohol speed nation flash devote level hobby quick inner drive ghost inside',
    '72be8e052fc4919d2adf28d5306b5474b0069df35b02303de8c1729c9538dbb6fc2d731d5f832193cd9fb6aeecbc469594a70e3dd50811b5067f3b88b28c3e8d',
  ],
  [
    '066dca1a2bb7e8a1db2832148ce9933eea0f3ac9548d793112d9a95c9407efad',
    'all hour make first leader extend hole alien behind guard gospel lava path output census museum junior mass reopen famous sing advance salt reform',
    '26e975ec644423f4a4c4f4215ef09b4bd7ef924e85d1d17c4cf3f136c2863cf6df0a475045652c57eb5fb41513ca2a2d67722b77e954b4b3fc11f7590449191d',
  ],
  [
    'f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f',
    'void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol group space point ten exist slush involve unfold',
    '01f5bced59dec48e362f2c45b5de68b9fd6c92c6634f44d6d40aab69056506f0e35524a518034ddc1192e1dacd32c1ed3eaa3c3b131c88ed8e7e54c49a5d0998',
  ],
];

void t.test('the published 24-word phrases are accepted and give the published seeds', async (t) => {
  for (const [entropy, words, seedHex] of BIP39) {
    t.equal(normalizePhrase(words), words);
    t.equal(entropyToMnemonic(hex(entropy), wordlist), words);
    t.same(mnemonicToSeedSync(words, 'TREZOR'), new Uint8Array(hex(seedHex)));
  }
});

void t.test('a generated phrase has 24 words, is its own normal form and is never the same', async (t) => {
  const phrases = Array.from({ length: 20 }, () => generatePhrase());
  for (const phrase of phrases) {
    t.equal(phrase.split(' ').length, 24);
    t.equal(normalizePhrase(phrase), phrase);
  }
  t.equal(new Set(phrases).size, phrases.length);
});

void t.test('case, white space and line breaks of a typed phrase do not matter', async (t) => {
  const words = BIP39[4]![1];
  const list = words.split(' ');
  t.equal(normalizePhrase(`\n\t ${words.toUpperCase()} \r\n`), words);
  t.equal(normalizePhrase(list.join('\r\n')), words);
  t.equal(normalizePhrase(list.join(' \t\u00a0 ')), words);
  t.equal(normalizePhrase(list.map((word) => `${word[0]!.toUpperCase()}${word.slice(1)}`).join('  ')), words);
});

void t.test('a wrong phrase is refused with what is wrong, and without its words', async (t) => {
  const list = BIP39[4]![1].split(' ');
  const refused = (text: string, ...says: string[]): void => {
    const { code, message } = codeAndMessage(() => normalizePhrase(text));
    t.equal(code, 'BAD_PHRASE');
    for (const part of says) t.ok(message.includes(part), `"${message}" says "${part}"`);
    for (const word of list.filter((word) => word !== 'word')) t.notOk(message.includes(word), `no "${word}"`);
  };
  const withWords = (changes: Record<number, string>): string =>
    list.map((word, index) => changes[index + 1] ?? word).join(' ');

  refused('', 'has 0');
  refused(list.slice(1).join(' '), 'has 23');
  refused([...list, 'length'].join(' '), 'has 25');
  refused(list.slice(0, 12).join(' '), 'has 12');
  refused(withWords({ 1: 'hamsterr' }), 'word 1 ');
  refused(withWords({ 24: 'secretname' }), 'word 24 ');
  refused(withWords({ 3: 'xx', 17: 'yy' }), 'words 3, 17 ');
  refused(withWords({ 2: `${list[1]!}${list[2]!}`, 3: '' }), 'has 23', 'word 2 ');
  refused(withWords({ 1: 'abandon' }), 'checksum');
  refused(withWords({ 1: list[1]!, 2: list[0]! }), 'checksum');
  t.notOk(codeAndMessage(() => normalizePhrase(withWords({ 24: 'secretname' }))).message.includes('secretname'));
  t.equal(codeAndMessage(() => normalizePhrase('no '.repeat(100_000))).message.length < 200, true);
  await t.rejects(deriveVolumeKeys('twelve words'), { code: 'BAD_PHRASE' });
});

void t.test('HKDF agrees with RFC 5869', async (t) => {
  // A.3 is the case with neither salt nor info; 32 bytes are the beginning of its 42.
  const okm = '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8';
  t.equal(subkey(hex('0b'.repeat(22)), '').toString('hex'), okm.slice(0, 64));
  // A.1 has an info that is no text: it vouches for the oracle of the tests below.
  const oracle = hkdf(sha256, hex('0b'.repeat(22)), hex('000102030405060708090a0b0c'), hex('f0f1f2f3f4f5f6f7f8f9'), 42);
  t.equal(
    Buffer.from(oracle).toString('hex'),
    '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
  );
  for (let round = 0; round < 50; round++) {
    const [key, salt, label] = [random.bytes(32), random.bytes(32), `label/${random.below(1000)}`];
    t.same(subkey(key, label, salt), Buffer.from(hkdf(sha256, key, salt, utf8(label), 32)));
    t.same(subkey(key, label), Buffer.from(hkdf(sha256, key, undefined, utf8(label), 32)));
    t.same(shardKey(key, salt), Buffer.from(hkdf(sha256, key, salt, utf8('xcore/shard/1'), 32)));
  }
});

void t.test('volume keys follow from the phrase as FORMAT.md says', async (t) => {
  const phrase = generatePhrase();
  const keys = await deriveVolumeKeys(`  ${phrase.toUpperCase()}\n`);
  const seed64 = pbkdf2(sha512, utf8(phrase), utf8('mnemonic'), { c: 2048, dkLen: 64 });
  const root = hkdf(sha256, seed64, undefined, utf8('xcore/root/1'), 32);
  const expected = (label: string): Buffer => Buffer.from(hkdf(sha256, root, undefined, utf8(label), 32));
  t.same(keys.ownerSeed, expected('xcore/owner/1'));
  t.same(keys.ownerPublicKey, Buffer.from(ed25519.getPublicKey(expected('xcore/owner/1'))));
  t.same(keys.dataKey, expected('xcore/data/1'));
  t.same(keys.logKey, expected('xcore/log/1'));
  t.same(keys.nameKey, expected('xcore/name/1'));
  t.same(keys.indexKey, expected('xcore/index/1'));
  const values = Object.values(keys as unknown as Record<string, Buffer>).map((key) => key.toString('hex'));
  t.equal(new Set(values).size, 6, 'no two keys are equal');
  t.same(await deriveVolumeKeys(phrase), keys, 'the same on every machine');
  t.notSame((await deriveVolumeKeys(generatePhrase())).dataKey, keys.dataKey);
});

void t.test('keys and salts of a wrong length are a programming error', async (t) => {
  const key = random.bytes(32);
  for (const size of [0, 16, 31, 33]) {
    t.throws(() => shardKey(random.bytes(size), key), RangeError);
    t.throws(() => shardKey(key, random.bytes(size)), RangeError);
    t.throws(() => publicKeyOf(random.bytes(size)), RangeError);
    t.throws(() => sign(random.bytes(size), 'l', key), RangeError);
  }
});

void t.test('signatures are those of RFC 8032 over label, NUL and message', async (t) => {
  // RFC 8032 §7.1, tests 1 to 3: seed, public key, message, signature.
  const vectors = [
    [
      '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
      '',
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
    ],
    [
      '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
      '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
      '72',
      '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
    ],
    [
      'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
      'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
      'af82',
      '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
    ],
  ] as const;
  for (const [seedHex, publicHex, message, signature] of vectors) {
    t.equal(publicKeyOf(hex(seedHex)).toString('hex'), publicHex);
    t.equal(Buffer.from(ed25519.sign(hex(message), hex(seedHex))).toString('hex'), signature, 'the oracle is right');
  }
  // More keys than the caches hold, so that evicted ones are made again.
  for (let round = 0; round < 40; round++) {
    const [key, message] = [random.bytes(32), random.bytes(random.below(300))];
    const signature = sign(key, 'test/1', message);
    t.same(signature, Buffer.from(ed25519.sign(Buffer.concat([utf8('test/1\0'), message]), key)));
    t.ok(verify(publicKeyOf(key), 'test/1', message, signature));
  }
});

void t.test('a signature with anything changed or malformed is false, never an exception', async (t) => {
  const key = random.bytes(32);
  const publicKey = publicKeyOf(key);
  const message = utf8('message');
  const signature = sign(key, 'label', message);
  t.ok(verify(publicKey, 'label', message, signature));
  t.notOk(verify(publicKey, 'labelm', utf8('essage'), signature));
  t.notOk(verify(publicKey, 'labe', message, signature));
  t.notOk(verify(publicKey, '', Buffer.concat([utf8('label\0'), message]), signature));
  t.notOk(verify(publicKey, 'label\0', message, signature));
  t.throws(() => sign(key, 'a\0b', message), RangeError);
  let passed = 0;
  for (let bit = 0; bit < 512; bit++) {
    if (verify(publicKey, 'label', message, flipped(signature, bit))) passed++;
    if (bit < 256 && verify(flipped(publicKey, bit), 'label', message, signature)) passed++;
    if (bit < 56 && verify(publicKey, 'label', flipped(message, bit), signature)) passed++;
  }
  t.equal(passed, 0);
  for (const size of [0, 1, 31, 33, 64]) t.notOk(verify(random.bytes(size), 'label', message, signature));
  for (const size of [0, 1, 63, 65, 128]) t.notOk(verify(publicKey, 'label', message, random.bytes(size)));
  t.notOk(verify(Buffer.alloc(32, 0xff), 'label', message, signature));
  t.notOk(verify(publicKey, 'label', message, Buffer.alloc(64, 0xff)));
});

void t.test('a wrapped secret opens with its passphrase only', async (t) => {
  const secret = random.bytes(64);
  const wrapped = await wrapSecret(secret, 'p\u00e4ssword');
  t.same(await unwrapSecret(wrapped, 'p\u00e4ssword'), secret);
  t.same(await unwrapSecret(wrapped, 'pa\u0308ssword'), secret, 'however the keyboard composes a letter');
  await t.rejects(unwrapSecret(wrapped, 'password'), { code: 'BAD_PASSPHRASE' });
  await t.rejects(unwrapSecret(wrapped, ''), { code: 'BAD_PASSPHRASE' });
  await t.rejects(unwrapSecret(flipped(wrapped, 8 * 5), 'p\u00e4ssword'), { code: 'BAD_PASSPHRASE' }, 'salt');
  await t.rejects(unwrapSecret(flipped(wrapped, 8 * 60), 'p\u00e4ssword'), { code: 'BAD_PASSPHRASE' }, 'sealed record');
  await t.rejects(
    unwrapSecret(wrapped.subarray(0, wrapped.length - 1), 'p\u00e4ssword'),
    { code: 'BAD_PASSPHRASE' },
    'cut off',
  );
  for (const broken of [
    Buffer.alloc(0),
    wrapped.subarray(0, 20),
    Buffer.concat([Buffer.from([2]), wrapped.subarray(1)]),
  ])
    await t.rejects(unwrapSecret(broken, 'p\u00e4ssword'), { code: 'BAD_FORMAT' });
});

void t.test('a wrapped secret is what FORMAT.md says, by an independent reading', async (t) => {
  // RFC 7914 §12 vouches for the oracle.
  t.equal(
    Buffer.from(scrypt('pleaseletmein', 'SodiumChloride', { N: 2 ** 14, r: 8, p: 1, dkLen: 64 })).toString('hex'),
    '7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887',
  );
  const secret = random.bytes(40);
  const wrapped = await wrapSecret(secret, 'correct horse');
  t.equal(wrapped.length, 33 + 33 + 40);
  t.equal(wrapped[0], 1);
  const header = wrapped.subarray(0, 33);
  const record = wrapped.subarray(33, -16);
  const key = scrypt('correct horse', header.subarray(1), { N: 2 ** 17, r: 8, p: 1, dkLen: 32, maxmem: 2 ** 28 });
  const macKey = hkdf(sha256, key, undefined, utf8('xcore/seal/authenticate/1'), 32);
  const tag = hmac(sha256, macKey, Buffer.concat([hex('00000021'), header, record])).subarray(0, 16);
  t.same(Buffer.from(tag), wrapped.subarray(-16));
  const encryptionKey = hkdf(sha256, key, undefined, utf8('xcore/seal/encrypt/1'), 32);
  t.same(Buffer.from(ctr(encryptionKey, record.subarray(1, 17)).decrypt(record.subarray(17))), secret);
});

function flipped(bytes: Uint8Array, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}
