// One log entry: what is sealed comes back, and nothing that was changed is taken for it.

import { randomBytes } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import t from 'tap';
import { EntryCodec } from '../../src/client/log-entry.ts';
import { deriveVolumeKeys } from '../../src/crypto/keys.ts';
import { generatePhrase } from '../../src/crypto/phrase.ts';
import { sign } from '../../src/crypto/sign.ts';
import { ENTRY_LABEL } from '../../src/net/entry-hash.ts';
import type { WireEntry } from '../../src/net/network.ts';
import { EntryHeaderSchema } from '../../src/net/proto/wire_pb.ts';
import { ChangeSetSchema } from '../../src/tree/proto/tree_pb.ts';

const keys = await deriveVolumeKeys(generatePhrase());
const codec = new EntryCodec(keys);
const prevHash = randomBytes(32);
const changeSet = create(ChangeSetSchema, {
  changes: [{ key: Buffer.from('i12345678'), value: Buffer.from('value') }, { key: Buffer.from('i12345679') }],
  lineage: randomBytes(16),
  lastCommit: 7n,
});
const added = [{ id: randomBytes(32), sizeBytes: 1_000 }];
const fields = { seq: 5, prevHash, epoch: 3, device: 'device', timeMs: 1_700_000_000_000, changeSet, added };
const { wire, hash } = codec.build({ ...fields, freed: [randomBytes(32)], checkpointSeq: 0 });

function flipped(bytes: Uint8Array, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

t.test('an entry that was sealed is opened as it was', async (t) => {
  const entry = codec.open(wire, 5, prevHash);
  t.ok(entry.hash.equals(hash));
  t.same(toBinary(ChangeSetSchema, entry.changeSet!), toBinary(ChangeSetSchema, changeSet));
  t.equal(entry.sizeBytes, wire.header.length + wire.body.length);
  t.same(
    { epoch: entry.header.epoch, device: entry.header.device, timeMs: entry.header.timeMs },
    { epoch: 3n, device: 'device', timeMs: 1_700_000_000_000n },
  );
  const pruned = codec.open({ ...wire, body: new Uint8Array(0) }, 5, prevHash);
  t.equal(pruned.changeSet, null, 'without its body it still proves its place');
  t.ok(pruned.hash.equals(hash));
});

t.test('no bit of header, signature or body can be changed', async (t) => {
  const taken: string[] = [];
  for (const part of ['header', 'signature', 'body'] as const) {
    for (let bit = 0; bit < wire[part].length * 8; bit++) {
      try {
        codec.open({ ...wire, [part]: flipped(wire[part], bit) }, 5, prevHash);
        taken.push(`${part}: bit ${bit}`);
      } catch (error) {
        if ((error as { code?: string }).code !== 'FORKED_LOG') taken.push(`${part}: bit ${bit}: ${String(error)}`);
      }
    }
    for (const length of [1, wire[part].length - 1]) {
      const cut: WireEntry = { ...wire, [part]: wire[part].subarray(0, length) };
      t.throws(() => codec.open(cut, 5, prevHash), { code: 'FORKED_LOG' }, `${part} of ${length} bytes`);
    }
    const longer: WireEntry = { ...wire, [part]: Buffer.concat([wire[part], Buffer.alloc(1)]) };
    t.throws(() => codec.open(longer, 5, prevHash), { code: 'FORKED_LOG' }, `${part} with a byte more`);
  }
  t.same(taken, []);
});

t.test('an entry has one place, in one volume', async (t) => {
  t.throws(() => codec.open(wire, 4, prevHash), { code: 'FORKED_LOG' }, 'another number');
  t.throws(() => codec.open(wire, 5, randomBytes(32)), { code: 'FORKED_LOG' }, 'another entry before it');
  const other = new EntryCodec(await deriveVolumeKeys(generatePhrase()));
  t.throws(() => other.open(wire, 5, prevHash), { code: 'FORKED_LOG' }, 'another owner');
  const next = codec.build({ ...fields, seq: 6, freed: [], checkpointSeq: 0 });
  t.throws(() => codec.open({ ...next.wire, body: wire.body }, 6, prevHash), { code: 'FORKED_LOG' }, 'another body');

  const resigned = (change: object): WireEntry => {
    const init = { ...fromBinary(EntryHeaderSchema, wire.header), ...change };
    const header = toBinary(EntryHeaderSchema, create(EntryHeaderSchema, init));
    return { ...wire, header, signature: sign(keys.ownerSeed, ENTRY_LABEL, header) };
  };
  codec.open(resigned({}), 5, prevHash);
  t.throws(() => codec.open(resigned({ version: 2 }), 5, prevHash), { code: 'BAD_FORMAT' }, 'an unknown version');
  t.throws(() => codec.open(resigned({ volume: randomBytes(32) }), 5, prevHash), { code: 'FORKED_LOG' });
  const moved = randomBytes(32);
  t.throws(() => codec.open(resigned({ prevHash: moved }), 5, moved), 'a body is sealed for its place');
  t.throws(() => codec.open(resigned({ seq: 6n }), 6, prevHash), 'also by number');
  const label = sign(keys.ownerSeed, 'xcore/order/1', wire.header);
  t.throws(() => codec.open({ ...wire, signature: label }, 5, prevHash), { code: 'FORKED_LOG' }, 'another label');
});
