// Decodes the worked examples of FORMAT.md, so that the document and the program cannot drift apart.

import { readFileSync } from 'node:fs';
import { mnemonicToSeed } from '@scure/bip39';
import t from 'tap';
import type { Test } from 'tap';
import { ctrAt } from '../../src/crypto/ctr.ts';
import { hiddenName } from '../../src/crypto/hidden-name.ts';
import { subkey } from '../../src/crypto/hkdf.ts';
import { deriveVolumeKeys, shardKey } from '../../src/crypto/keys.ts';
import { leafHashes, merkleRoot, rangeProof, shardIdOf, verifyRange, verifyShard } from '../../src/crypto/merkle.ts';
import { unwrapSecret } from '../../src/crypto/passphrase.ts';
import { Sealer } from '../../src/crypto/sealer.ts';
import { sign, verify } from '../../src/crypto/sign.ts';

const DOCUMENT = readFileSync(new URL('../../FORMAT.md', import.meta.url), 'utf8');
const decoded = new Set<string>();
const PHRASE = `${'abandon '.repeat(23)}art`;

type Fields<Name extends string> = Record<Name, Buffer>;

/**
 * The fields of one example table, which must be exactly those named, in this order. A "total" row
 * must be the fields above it, one after the other.
 */
function example<Name extends string>(t: Test, heading: string, ...names: Name[]): Fields<Name> {
  decoded.add(heading);
  const section = DOCUMENT.split(`### Example: ${heading}\n`)[1]?.split('\n#')[0] ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('|'));
  const fields: [string, Buffer][] = [];
  for (const row of rows.slice(2)) {
    const [, name = '', size = '', value = ''] = /^\| (.+?) +\| (\d+) +\| `(.+)` +\|$/.exec(row) ?? [];
    const text = /^"(.*)"$/.exec(value)?.[1];
    const bytes = text === undefined ? Buffer.from(value, 'hex') : Buffer.from(text);
    t.equal(bytes.length, Number(size), `${heading}: "${name}" has as many bytes as it says`);
    if (name === 'total') t.same(bytes, Buffer.concat(fields.map(([, field]) => field)), `${heading}: total`);
    fields.push([name, bytes]);
  }
  t.same(
    fields.map(([name]) => name),
    names,
    `${heading}: the fields are those this test knows`,
  );
  return Object.fromEntries(fields) as Fields<Name>;
}

const keys = await deriveVolumeKeys(PHRASE);

void t.test('key schedule', async (t) => {
  const fields = example(
    t,
    'key schedule',
    'seed',
    'root key',
    'owner seed',
    'owner public key',
    'data key',
    'log key',
    'name key',
    'index key',
  );
  t.same(Buffer.from(await mnemonicToSeed(PHRASE)), fields.seed);
  t.same(subkey(fields.seed, 'xcore/root/1'), fields['root key']);
  t.same(keys, {
    ownerSeed: fields['owner seed'],
    ownerPublicKey: fields['owner public key'],
    dataKey: fields['data key'],
    logKey: fields['log key'],
    nameKey: fields['name key'],
    indexKey: fields['index key'],
  });
});

void t.test('signature', async (t) => {
  const { label, message, signature } = example(t, 'signature', 'label', 'message', 'signature');
  t.same(sign(keys.ownerSeed, label.toString(), message), signature);
  t.ok(verify(keys.ownerPublicKey, label.toString(), message, signature));
});

void t.test('sealed record', async (t) => {
  const { nonce, total } = example(t, 'sealed record', 'version', 'nonce', 'ciphertext', 'tag', 'total');
  const [plaintext, associated] = [Buffer.from('hello'), Buffer.from('key 1')];
  t.same(new Sealer(keys.indexKey).open(total, associated), plaintext);
  t.same(new Sealer(keys.indexKey, () => nonce).seal(plaintext, associated), total);
});

void t.test('hidden name', async (t) => {
  const fields = example(t, 'hidden name', 'parent', 'name', 'hidden name');
  const parent = Number(fields.parent.readBigUInt64BE());
  t.same(hiddenName(keys.nameKey, parent, fields.name.toString('latin1')), fields['hidden name']);
});

void t.test('shard', async (t) => {
  const fields = example(t, 'shard', 'plaintext', 'salt', 'shard key', 'shard', 'from offset 20', 'shard id');
  const { plaintext, salt, shard } = fields;
  const key = shardKey(keys.dataKey, salt);
  t.same(key, fields['shard key']);
  t.same(ctrAt(key, 0, shard), plaintext);
  t.same(fields['from offset 20'], shard.subarray(20));
  t.same(ctrAt(key, 20, fields['from offset 20']), plaintext.subarray(20));
  t.same(verifyShard(fields['shard id'], shard), leafHashes(shard));
});

void t.test('shard id and range proof', async (t) => {
  const fields = example(
    t,
    'shard id and range proof',
    'leaf 0',
    'leaf 1',
    'leaf 2',
    'node of leaves 0 and 1',
    'tree root',
    'size',
    'shard id',
    'proof node',
  );
  const data = Buffer.concat([Buffer.alloc(16384, 0), Buffer.alloc(16384, 1), Buffer.alloc(7232, 2)]);
  const leaves = leafHashes(data);
  t.same(leaves, Buffer.concat([fields['leaf 0'], fields['leaf 1'], fields['leaf 2']]));
  t.same(merkleRoot(leaves.subarray(0, 64)), fields['node of leaves 0 and 1']);
  t.same(merkleRoot(leaves), fields['tree root']);
  t.equal(fields.size.readBigUInt64BE(), 40_000n);
  t.same(shardIdOf(leaves, 40_000), fields['shard id']);
  t.same(rangeProof(leaves, 1, 2), [fields['proof node']]);
  t.ok(verifyRange(fields['shard id'], 40_000, 1, data.subarray(16384), [fields['proof node']]));
});

void t.test('wrapped secret', async (t) => {
  const { total } = example(t, 'wrapped secret', 'version', 'salt', 'sealed record', 'total');
  t.same(await unwrapSecret(total, 'correct horse'), Buffer.from('secret'));
});

void t.test('no example of the document is left out', async (t) => {
  const headings = [...DOCUMENT.matchAll(/^### Example: (.+)$/gm)].map((match) => match[1]);
  t.same([...decoded].sort(), headings.sort());
});
