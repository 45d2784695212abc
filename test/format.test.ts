// Decodes the worked examples of FORMAT.md, so that the document and the program cannot drift apart.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { fromBinary } from '@bufbuild/protobuf';
import { mnemonicToSeed } from '@scure/bip39';
import t from 'tap';
import type { Test } from 'tap';
import { beginAnswer, isAnswer } from '../src/crypto/hashed-key.ts';
import { ctrAt } from '../src/crypto/ctr.ts';
import { hiddenName } from '../src/crypto/hidden-name.ts';
import { subkey } from '../src/crypto/hkdf.ts';
import { deriveVolumeKeys, shardKey } from '../src/crypto/keys.ts';
import { leafHashes, merkleRoot, rangeProof, shardIdOf, verifyRange, verifyShard } from '../src/crypto/merkle.ts';
import { unwrapSecret } from '../src/crypto/passphrase.ts';
import { Sealer } from '../src/crypto/sealer.ts';
import { sign, verify } from '../src/crypto/sign.ts';
import { readCheckpoint } from '../src/client/checkpoint.ts';
import type { CheckpointComponents } from '../src/client/checkpoint.ts';
import { EntryCodec } from '../src/client/log-entry.ts';
import { signAuthentication } from '../src/net/authentication.ts';
import { encodeFrame, FrameDecoder } from '../src/net/frame-codec.ts';
import { mintStock, verifyStock } from '../src/net/key-stock.ts';
import {
  checkOrder,
  MAX_CLOCK_SKEW_MS,
  signOrder,
  signReceipt,
  verifyOrder,
  verifyReceipt,
} from '../src/net/orders.ts';
import { peerNameOf } from '../src/net/peer-name.ts';
import { BRIDGE_FRAME_BYTES } from '../src/net/protocols.ts';
import { BridgeRequestSchema } from '../src/net/proto/wire_pb.ts';
import { dentryKey, keyBytes, windowKey } from '../src/tree/keys.ts';
import { ChangeSetSchema, CheckpointSchema } from '../src/tree/proto/tree_pb.ts';
import { decodeRecord, encodeRecord } from '../src/tree/record-codec.ts';

const DOCUMENT = readFileSync(new URL('../FORMAT.md', import.meta.url), 'utf8');
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

const NONCE = Buffer.from('a0a1a2a3a4a5a6a7a8a9aaabacadaeaf', 'hex');
const DENTRY = { name: 'hello.txt', ino: 2, type: 0o100000 };

void t.test('index record', async (t) => {
  const fields = example(t, 'index record', 'key', 'record', 'sealed record');
  t.same(keyBytes(dentryKey(1, hiddenName(keys.nameKey, 1, 'hello.txt'))), fields.key);
  t.same(encodeRecord('d', DENTRY), fields.record);
  t.same(decodeRecord('d', fields.record, 0), DENTRY);
  t.same(new Sealer(keys.indexKey).open(fields['sealed record'], fields.key), fields.record);
  t.same(new Sealer(keys.indexKey, () => NONCE).seal(fields.record, fields.key), fields['sealed record']);
});

void t.test('extents', async (t) => {
  const fields = example(t, 'extents', 'key', 'record');
  const window = { offsets: [0, 8192], lengths: [4096, 100], shards: [7, 7], shardOffsets: [0, 4096] };
  t.same(keyBytes(windowKey(2, 1)), fields.key);
  t.same(encodeRecord('e', window), fields.record);
  t.same(decodeRecord('e', fields.record, 0), window);
});

void t.test('log entry', async (t) => {
  const fields = example(t, 'log entry', 'change set', 'associated data', 'body', 'header', 'signature', 'entry hash');
  const { header, signature, body } = fields;
  const entry = new EntryCodec(keys).open({ header, signature, body }, 1, Buffer.alloc(32));
  t.same(entry.hash, fields['entry hash']);
  t.same(entry.changeSet, fromBinary(ChangeSetSchema, fields['change set']));
  t.same(entry.changeSet?.lineage, Buffer.alloc(16, 4));
  t.same(decodeRecord('d', entry.changeSet?.changes[0]?.value ?? Buffer.alloc(0), 0), DENTRY);
  t.equal(entry.header.device, peerNameOf(Buffer.alloc(32, 5)));
  t.equal(entry.header.timeMs, 1_767_225_600_000n);
  t.same(fields['associated data'], Buffer.concat([Buffer.from('0000000000000001', 'hex'), Buffer.alloc(32)]));
  t.same(new Sealer(keys.logKey).open(body, fields['associated data']), fields['change set']);
  t.same(sign(keys.ownerSeed, 'xcore/entry/1', header), signature);
  const hash = createHash('sha256').update('xcore/entry/1\0').update(header).digest();
  t.same(hash, fields['entry hash']);
});

void t.test('checkpoint', async (t) => {
  const { plaintext, shard, checkpoint } = example(t, 'checkpoint', 'plaintext', 'shard', 'checkpoint');
  const message = fromBinary(CheckpointSchema, checkpoint);
  const [only] = message.shards;
  t.same(ctrAt(shardKey(keys.dataKey, only?.salt ?? Buffer.alloc(32)), 0, shard), plaintext);
  t.ok(verifyShard(only?.id ?? Buffer.alloc(0), shard));
  const network = {
    fetchShard: (_id: Uint8Array, _sizeBytes: number, path: string) => writeFile(path, shard),
  } as unknown as CheckpointComponents['network'];
  const records: unknown[] = [];
  for await (const change of readCheckpoint({ network, dataKey: keys.dataKey, dir: t.testdir() }, message)) {
    const kind = String.fromCharCode(change.key[0] ?? 0);
    records.push(decodeRecord(kind, change.value ?? Buffer.alloc(0), 0));
  }
  t.same(records, [{ nextIno: 3, nextShard: 1, inodes: 2, storedBytes: 0 }, DENTRY]);
});

void t.test('frame', async (t) => {
  const { message, frame, ...fields } = example(t, 'frame', 'message', 'frame', 'prefix of 300 bytes');
  const decoder = new FrameDecoder(BRIDGE_FRAME_BYTES);
  decoder.push(frame);
  t.same(decoder.next(), message);
  t.same(encodeFrame(message), frame);
  t.same(encodeFrame(Buffer.alloc(300)).subarray(0, 2), fields['prefix of 300 bytes']);
  const request = fromBinary(BridgeRequestSchema, message);
  t.equal(request.id, 1);
  t.match(request.body, { case: 'readLog', value: { fromSeq: 1n, maxBytes: 2_097_152 } });
});

const [BRIDGE_SEED, HOST_SEED, CLIENT_SEED] = [Buffer.alloc(32, 6), Buffer.alloc(32, 7), Buffer.alloc(32, 5)];

void t.test('authentication', async (t) => {
  const { message, signature } = example(t, 'authentication', 'message', 'signature');
  const [bridge, client] = [peerNameOf(BRIDGE_SEED), peerNameOf(CLIENT_SEED)];
  t.same(Buffer.from([bridge, client, '1767229200000'].join('\0')), message);
  t.same(signAuthentication(keys.ownerSeed, bridge, client, 1_767_229_200_000n), signature);
  t.ok(verify(keys.ownerPublicKey, 'xcore/authenticate/1', message, signature));
});

void t.test('order and receipt', async (t) => {
  const fields = example(
    t,
    'order and receipt',
    'bridge',
    'host',
    'client',
    'order',
    'signature of the order',
    'receipt',
    'signature of the receipt',
  );
  const [bridge, host, client] = [fields.bridge.toString(), fields.host.toString(), fields.client.toString()];
  t.same([bridge, host, client], [BRIDGE_SEED, HOST_SEED, CLIENT_SEED].map(peerNameOf));
  const signedOrder = signOrder(BRIDGE_SEED, fromOrder(fields.order, fields['signature of the order'], bridge));
  t.same(signedOrder.body, fields.order);
  t.same(signedOrder.signature, fields['signature of the order']);
  const order = verifyOrder(signedOrder, bridge);
  checkOrder(order, { operation: 'store', client, host, nowMs: 1_767_229_199_999 + MAX_CLOCK_SKEW_MS });
  t.throws(
    () => checkOrder(order, { operation: 'store', client, host, nowMs: 1_767_229_200_000 + MAX_CLOCK_SKEW_MS }),
    {
      code: 'REFUSED',
    },
  );
  const receipt = verifyReceipt({
    ...signedOrder,
    ...{ $typeName: 'xcore.wire.Signed', body: fields.receipt, signature: fields['signature of the receipt'] },
  });
  t.same(signReceipt(HOST_SEED, receipt).body, fields.receipt);
  t.same([receipt.serial, receipt.shardId, receipt.host], [order.serial, order.shardId, host]);
});

void t.test('hashed key', async (t) => {
  const fields = example(t, 'hashed key', 'challenge', 'answer', 'commitment', 'stock', 'signature of the stock');
  const { shard } = example(t, 'checkpoint', 'plaintext', 'shard', 'checkpoint');
  t.same(beginAnswer(fields.challenge).update(shard).digest(), fields.answer);
  t.ok(isAnswer(fields.answer, fields.commitment));
  t.notOk(isAnswer(fields.commitment, fields.commitment));
  const stock = verifyStock({
    ...mintStock(CLIENT_SEED, Buffer.alloc(32), shard, 1),
    ...{ body: fields.stock, signature: fields['signature of the stock'] },
  });
  t.match(stock, { minter: peerNameOf(CLIENT_SEED), sizeBytes: shard.length, keys: [{}] });
  t.same(
    stock.keys.map(({ challenge, commitment }) => [challenge, commitment]),
    [[fields.challenge, fields.commitment].map((bytes) => new Uint8Array(bytes))],
  );
});

function fromOrder(body: Buffer, signature: Buffer, bridge: string): ReturnType<typeof verifyOrder> {
  return verifyOrder({ $typeName: 'xcore.wire.Signed', body, signature }, bridge);
}

void t.test('no example of the document is left out', async (t) => {
  const headings = [...DOCUMENT.matchAll(/^### Example: (.+)$/gm)].map((match) => match[1]);
  t.same([...decoded].sort(), headings.sort());
});
