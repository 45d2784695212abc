// Every decoder of what comes from others, or from a disk that others may have had: mutated and random inputs either mean
// something or fail with a code that says so, at once and without taking memory.
//
// XCORE_TEST_FUZZ=100000 sets the number of inputs over all files of test/fuzz (20,000 unless told); XCORE_TEST_SEED=… repeats a run.

import { createHash, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage } from '@bufbuild/protobuf';
import t from 'tap';
import { authenticate } from '../../src/bridge/authenticate.ts';
import { checkEntry } from '../../src/bridge/entry.ts';
import { file_records } from '../../src/bridge/proto/records_pb.ts';
import * as records from '../../src/bridge/records.ts';
import { readCheckpoint } from '../../src/client/checkpoint.ts';
import { EntryCodec } from '../../src/client/log-entry.ts';
import { ctrAt } from '../../src/crypto/ctr.ts';
import { deriveVolumeKeys, shardKey } from '../../src/crypto/keys.ts';
import {
  LEAF_SIZE_BYTES,
  leafCountOf,
  leafHashes,
  rangeProof,
  shardIdOf,
  verifyRange,
  verifyShard,
} from '../../src/crypto/merkle.ts';
import { generatePhrase } from '../../src/crypto/phrase.ts';
import { Sealer } from '../../src/crypto/sealer.ts';
import { publicKeyOf, sign } from '../../src/crypto/sign.ts';
import { IN_HEADER } from '../../src/fuse/abi.ts';
import { MalformedRequest, Request } from '../../src/fuse/request.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import type { ErrorCode } from '../../src/lib/errors.ts';
import { readLines } from '../../src/lib/lines.ts';
import { announceable } from '../../src/net/address-scope.ts';
import { signAuthentication } from '../../src/net/authentication.ts';
import { ENTRY_LABEL } from '../../src/net/entry-hash.ts';
import { errorOf } from '../../src/net/failure.ts';
import { encodeFrame, FrameDecoder } from '../../src/net/frame-codec.ts';
import { mintStock, verifyStock } from '../../src/net/key-stock.ts';
import type { Network } from '../../src/net/network.ts';
import { networkPrefix } from '../../src/net/network-prefix.ts';
import { dialAddresses } from '../../src/net/node.ts';
import { readOrder, signOrder, signReceipt, verifyOrder, verifyReceipt } from '../../src/net/orders.ts';
import { peerNameOf, publicKeyOfPeer } from '../../src/net/peer-name.ts';
import {
  AuthenticateSchema,
  EntryHeaderSchema,
  FailureSchema,
  file_wire,
  LogEntrySchema,
  SignedSchema,
} from '../../src/net/proto/wire_pb.ts';
import type { Signed } from '../../src/net/proto/wire_pb.ts';
import { signSighting, verifySighting } from '../../src/net/sightings.ts';
import { ChangeSetSchema, CheckpointSchema, file_tree } from '../../src/tree/proto/tree_pb.ts';
import { KIND } from '../../src/tree/keys.ts';
import { decodeRecord, encodeRecord } from '../../src/tree/record-codec.ts';
import { decodeTally } from '../../src/tree/tally.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { pickSeed, Random } from '../support/random.ts';
import { bytesInUse } from './memory.ts';
import { inputOf } from './mutate.ts';
import { sampleOf } from './sample.ts';

t.setTimeout(300_000);

const INPUTS = Number(process.env['XCORE_TEST_FUZZ'] ?? 20_000);
/** The rest goes to the streams of servers. */
const SHARE = 0.75;
/** What a run may leave in memory: caches have bounds. */
const MAX_GROWTH_BYTES = 64 * 1024 * 1024;
const seed = pickSeed();
const random = new Random(seed);

/** One way to read bytes. What it throws must be one of these codes; what it asserts, it asserts by throwing a TypeError. */
interface Decoder {
  readonly samples: readonly Buffer[];
  readonly codes: readonly ErrorCode[];
  readonly decode: (bytes: Buffer, random: Random) => unknown;
}

function must(holds: boolean, what: string): void {
  if (!holds) throw new TypeError(`must: ${what}`);
}

const bridge = randomBytes(32);
const host = randomBytes(32);
const device = randomBytes(32);
const keys = await deriveVolumeKeys(generatePhrase());
const shard = random.bytes(5 * LEAF_SIZE_BYTES + 100);
const leaves = leafHashes(shard);
const shardId = shardIdOf(leaves, shard.length);
const fields = { serial: randomBytes(16), shardId, sizeBytes: shard.length, client: peerNameOf(device) };
const order = { ...fields, operation: 'store', host: peerNameOf(host), volume: randomBytes(32), expiresMs: 2n ** 41n };
const signed = [
  signOrder(bridge, order),
  signReceipt(host, { ...fields, host: peerNameOf(host), timeMs: 7n }),
  mintStock(device, shardId, shard, 8),
];
const nonce = randomBytes(16);
const owner = { volume: keys.ownerPublicKey, peer: peerNameOf(device) };
const codec = new EntryCodec(keys);
const changes = [{ key: Buffer.from('i12345678'), value: Buffer.from('value') }, { key: Buffer.from('i12345679') }];
const changeSet = create(ChangeSetSchema, { changes, lineage: randomBytes(16), lastCommit: 7n });
const entry = codec.build({
  ...{ seq: 5, prevHash: shardId, epoch: 3, device: owner.peer, timeMs: 1, changeSet, checkpointSeq: 0 },
  ...{ added: [{ id: shardId, sizeBytes: 1_000 }], freed: [randomBytes(32)] },
}).wire;
const sealer = new Sealer(keys.indexKey);
const clock = new FakeClock();
const dir = t.testdir();

/** A message as it travels, or its body alone with a signature that is right for whatever it says. */
function signedBy(bytes: Buffer, signer: Uint8Array, label: string, random: Random): Signed {
  if (random.below(8) > 0) return create(SignedSchema, { body: bytes, signature: sign(signer, label, bytes) });
  return create(SignedSchema, { body: bytes, signature: random.bytes(random.pick([0, 63, 64, 65])) });
}

function messages(descriptions: readonly DescMessage[]): Decoder {
  const samples = descriptions.flatMap((schema) => Array.from({ length: 4 }, () => sampleOf(schema, random)));
  return {
    samples,
    codes: [],
    decode: (bytes, random) => {
      const schema = random.pick(descriptions);
      let message;
      try {
        message = fromBinary(schema, bytes);
      } catch {
        return; // generated code says so in its own way; who calls it turns that into a code
      }
      must(toBinary(schema, message).length <= 3 * bytes.length + 64, `${schema.name}: not longer than its input`);
    },
  };
}

const TREE_KINDS = Object.values(KIND).filter((kind) => kind !== KIND.outbox && kind !== KIND.tally);
const someRecords = new Map([
  [KIND.dentry, encodeRecord(KIND.dentry, { name: 'name', ino: 7, type: 0o100000 })],
  [KIND.window, encodeRecord(KIND.window, { offsets: [0, 9], lengths: [5, 7], shards: [1, 2], shardOffsets: [3, 4] })],
  [KIND.counters, encodeRecord(KIND.counters, { nextIno: 1, nextShard: 2, inodes: 3, storedBytes: 4 })],
  [KIND.xattrs, encodeRecord(KIND.xattrs, new Map([['user.a', Buffer.from('value')]]))],
]);

const DECODERS: Record<string, Decoder> = {
  'messages of the wire': messages(file_wire.messages),
  'records of the bridge': messages(file_records.messages),
  'records of the tree': messages(file_tree.messages),
  frames: {
    samples: [1, 127, 128, 300, 5_000].map((size) => encodeFrame(random.bytes(size))),
    codes: ['PROTOCOL', 'TOO_LARGE'],
    decode: (bytes, random) => {
      const decoder = new FrameDecoder(random.pick([1, 100, 4_096, 1 << 22]));
      for (let at = 0; at < bytes.length;) {
        const step = random.pick([1, 2, 7, 1_000, bytes.length]);
        decoder.push(bytes.subarray(at, at + step));
        at += step;
        for (let frame = decoder.next(); frame; frame = decoder.next()) must(frame.length > 0, 'no frame is empty');
        must(decoder.pendingBytes <= bytes.length + 1, 'holds no more than came');
      }
    },
  },
  orders: {
    samples: [Buffer.from(signed[0]!.body)],
    codes: ['PROTOCOL', 'REFUSED'],
    decode: (bytes, random) => {
      const { serial, shardId: id } = verifyOrder(signedBy(bytes, bridge, 'xcore/order/1', random), peerNameOf(bridge));
      must(serial.length === 16 && id.length === 32, 'ids of an order have their length');
    },
  },
  'orders as clients read them': {
    samples: [Buffer.from(signed[0]!.body)],
    codes: ['PROTOCOL'],
    decode: (bytes) => readOrder(create(SignedSchema, { body: bytes })),
  },
  receipts: {
    samples: [Buffer.from(signed[1]!.body)],
    codes: ['PROTOCOL', 'REFUSED'],
    decode: (bytes, random) => {
      const { serial, shardId: id } = verifyReceipt(signedBy(bytes, host, 'xcore/receipt/1', random));
      must(serial.length === 16 && id.length === 32, 'ids of a receipt have their length');
    },
  },
  'stocks of hashed keys': {
    samples: [Buffer.from(signed[2]!.body)],
    codes: ['PROTOCOL', 'REFUSED'],
    decode: (bytes, random) => {
      const stock = verifyStock(signedBy(bytes, device, 'xcore/keys/1', random));
      must(
        stock.keys.length <= 8 && stock.keys.every(({ commitment }) => commitment.length === 32),
        'a stock is small',
      );
    },
  },
  sightings: {
    samples: ['/ip4/203.0.113.7/tcp/4001', '/ip6/2001:db8::7/tcp/65535/p2p/x', '/ip6/::ffff:10.0.0.1/tcp/1'].map(
      (from) => Buffer.from(signSighting(bridge, peerNameOf(host), from, nonce).body),
    ),
    codes: ['PROTOCOL', 'REFUSED'],
    decode: (bytes, random) => {
      const expected = { bridge: peerNameOf(bridge), peer: peerNameOf(host), nonce };
      const address = verifySighting(signedBy(bytes, bridge, 'xcore/sighting/1', random), expected);
      must(/^\/ip[46]\/[\da-f.:]+\/tcp\/[1-9]\d*$/i.test(address), 'an address is one of IP and TCP');
      must(dialAddresses(expected.peer, [address]).length === 1, 'it can be dialled');
    },
  },
  'proofs of owners': {
    samples: [
      Buffer.from(
        toBinary(
          AuthenticateSchema,
          create(AuthenticateSchema, {
            volume: publicKeyOf(keys.ownerSeed),
            expiresMs: BigInt(clock.now() + 60_000),
            signature: signAuthentication(keys.ownerSeed, peerNameOf(bridge), owner.peer, BigInt(clock.now() + 60_000)),
          }),
        ),
      ),
    ],
    codes: ['REFUSED', 'PROTOCOL'],
    decode: (bytes) => {
      const proof = decoded(AuthenticateSchema, bytes);
      authenticate(proof, { bridge: peerNameOf(bridge), client: owner.peer }, clock);
    },
  },
  'log entries, as the bridge checks them': {
    samples: [Buffer.from(entry.header), Buffer.from(toBinary(LogEntrySchema, create(LogEntrySchema, entry)))],
    codes: ['PROTOCOL', 'REFUSED', 'BAD_FORMAT', 'TOO_LARGE'],
    decode: (bytes, random) => {
      const whole = random.below(2) === 0;
      const header = { header: bytes, signature: sign(keys.ownerSeed, ENTRY_LABEL, bytes), body: entry.body };
      checkEntry(owner, whole ? decoded(LogEntrySchema, bytes) : create(LogEntrySchema, header));
    },
  },
  'log entries, as clients open them': {
    samples: [Buffer.from(entry.header), Buffer.from(entry.body)],
    codes: ['FORKED_LOG', 'BAD_FORMAT', 'CORRUPT_RECORD'],
    decode: (bytes, random) => {
      if (random.below(2) === 0) {
        const signature = sign(keys.ownerSeed, ENTRY_LABEL, bytes);
        codec.open({ header: bytes, signature, body: entry.body }, 5, random.pick([null, shardId]));
        return;
      }
      const bodyHash = createHash('sha256').update(bytes).digest();
      const header = toBinary(
        EntryHeaderSchema,
        create(EntryHeaderSchema, { ...fromBinary(EntryHeaderSchema, entry.header), bodyHash }),
      );
      codec.open({ header, signature: sign(keys.ownerSeed, ENTRY_LABEL, header), body: bytes }, 5, shardId);
    },
  },
  checkpoints: {
    samples: [
      Buffer.from(
        '0b0a016312060803100118022e0a19640000000000000001b96163de90e6a6b945a94364a6f9fdf012110a0968656c6c6f2e747874100218808002',
        'hex',
      ),
    ],
    codes: ['CORRUPT_RECORD'],
    decode: async (bytes) => {
      if (bytes.length === 0) return;
      const salt = Buffer.alloc(32);
      const ciphertext = ctrAt(shardKey(keys.dataKey, salt), 0, bytes);
      const network = { fetchShard: (_id: unknown, _size: unknown, path: string) => writeFile(path, ciphertext) };
      const shards = [{ id: shardId, salt, sizeBytes: bytes.length }];
      const hash = createHash('sha256').update(bytes).digest();
      const components = { network: network as unknown as Network, dataKey: keys.dataKey, dir };
      for await (const change of readCheckpoint(components, create(CheckpointSchema, { shards, records: 2n, hash })))
        must(change.key.length + (change.value?.length ?? 0) <= bytes.length, 'no change is longer than all');
    },
  },
  'sealed records': {
    samples: [
      sealer.seal(Buffer.from('value'), Buffer.from('key')),
      sealer.seal(random.bytes(300), Buffer.from('key')),
    ],
    codes: ['CORRUPT_RECORD', 'BAD_FORMAT'],
    decode: (bytes) => sealer.open(bytes, Buffer.from('key')),
  },
  'records of an index': {
    samples: [...someRecords.values()].map((bytes) => Buffer.from(bytes)),
    codes: ['CORRUPT_RECORD', 'BAD_FORMAT'],
    decode: (bytes, random) => {
      const kind = random.pick(TREE_KINDS);
      const record = decodeRecord(kind, bytes, 7);
      if (kind !== KIND.window || !('offsets' in record)) return;
      const { offsets, lengths, shards, shardOffsets } = record;
      const counts = new Set([offsets.length, lengths.length, shards.length, shardOffsets.length]);
      must(counts.size === 1, 'extents have all their parts');
    },
  },
  tallies: {
    samples: [Buffer.from('0801100218032004', 'hex')],
    codes: ['CORRUPT_RECORD', 'BAD_FORMAT'],
    decode: (bytes) => decodeTally(bytes),
  },
  'records of a bridge’s store': {
    samples: Array.from({ length: 8 }, () => sampleOf(random.pick(file_records.messages), random)),
    codes: ['BAD_FORMAT'],
    decode: (bytes, random) => {
      const { hostRecord, volumeRecord, shardRecord, orderRecord, deleteRecord, stockRecord } = records;
      random.pick([hostRecord, volumeRecord, shardRecord, orderRecord, deleteRecord, stockRecord]).decode(bytes);
    },
  },
  'Merkle proofs': {
    samples: [Buffer.concat(rangeProof(leaves, 1, 2)), Buffer.concat(rangeProof(leaves, 5, 1))],
    codes: [],
    decode: (bytes, random) => {
      const width = random.pick([32, 32, 31, 33]);
      const proof = Array.from({ length: Math.ceil(bytes.length / width) }, (_none, at) =>
        bytes.subarray(at * width, (at + 1) * width),
      );
      const first = random.below(8);
      const data = random.pick([shard.subarray(first * LEAF_SIZE_BYTES, (first + 2) * LEAF_SIZE_BYTES), bytes]);
      const size = random.pick([shard.length, 0, 1, 2 ** 21, 2 ** 32 - 1]);
      const holds = verifyRange(shardId, size, first, data, proof);
      must(!holds || (size === shard.length && data !== bytes), 'nothing is proved that is not so');
      if (holds) must(first + Math.ceil(data.length / LEAF_SIZE_BYTES) <= leafCountOf(size), 'leaves that exist');
      must(verifyShard(shardId, bytes) === null, 'other bytes are not the shard');
    },
  },
  'failures and names of peers': {
    samples: [
      Buffer.from(toBinary(FailureSchema, create(FailureSchema, { code: 'QUOTA', message: 'full' }))),
      Buffer.from(peerNameOf(host)),
      Buffer.from('/ip4/192.168.1.2/tcp/4001/p2p/12D3KooWHFd1gyNYFqxt7ke9FY2VoVVWY2XSPhvL9vg2pB6wQGfa'),
      Buffer.from('/ip6/fe80::1%eth0/tcp/1'),
      Buffer.from('/dns4/example.org/tcp/1/ws'),
    ],
    codes: ['PROTOCOL'],
    decode: (bytes) => {
      const text = bytes.toString();
      const error = errorOf({ code: text, message: text });
      must(error.message.length <= 512 && !/\p{Cc}/u.test(error.message), 'a peer’s words are short and plain');
      networkPrefix(text);
      announceable([text, '/ip4/127.0.0.1/tcp/1'], text);
      must(
        dialAddresses(
          peerNameOf(host),
          Array.from({ length: 40 }, () => text),
        ).length <= 16,
        'few are dialled',
      );
      publicKeyOfPeer(text);
    },
  },
  'lines of the control socket': {
    samples: [Buffer.from('{"id":1,"method":"status","params":{}}\n'), Buffer.from('\r\n\n{}\n')],
    codes: [],
    decode: (bytes, random) => {
      const stream = new PassThrough();
      const limit = random.pick([10, 1_000, 65_536]);
      readLines(stream, limit, (line) => must(Buffer.byteLength(line) <= 3 * limit, 'no line is over its limit'));
      for (let at = 0; at < bytes.length; at += 977) stream.emit('data', bytes.subarray(at, at + 977));
      stream.destroy();
    },
  },
  'requests of the kernel': {
    samples: [
      fuseRequest(1, Buffer.from('name\0')),
      fuseRequest(16, Buffer.alloc(40)),
      fuseRequest(12, Buffer.alloc(60)),
    ],
    codes: ['EFBIG'],
    decode: (bytes, random) => {
      if (bytes.length < IN_HEADER.size) return;
      try {
        const request = new Request(bytes, bytes.length);
        const offset = random.below(100);
        random.pick([
          () => request.name(offset),
          () => request.u32(offset),
          () => request.u64(offset),
          () => request.copy(offset, random.below(5_000)),
        ])();
      } catch (error) {
        if (!(error instanceof MalformedRequest)) throw error;
      }
    },
  },
};

function decoded<S extends DescMessage>(schema: S, bytes: Buffer): ReturnType<typeof fromBinary<S>> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw new XcoreError('PROTOCOL', 'malformed', { cause });
  }
}

function fuseRequest(opcode: number, body: Buffer): Buffer {
  const header = Buffer.alloc(IN_HEADER.size);
  header.writeUInt32LE(header.length + body.length, IN_HEADER.len);
  header.writeUInt32LE(opcode, IN_HEADER.opcode);
  return Buffer.concat([header, body]);
}

t.test('no input breaks a decoder or takes its memory', async (t) => {
  t.comment(`seed ${seed}`);
  const names = Object.keys(DECODERS);
  const each = Math.ceil((INPUTS * SHARE) / names.length);
  const before = await bytesInUse();
  for (const name of names) {
    const { samples, codes, decode } = DECODERS[name]!;
    let refused = 0;
    let bad: string | undefined;
    for (let number = 0; number < each && bad === undefined; number += 1) {
      const input = inputOf(`${seed}/${name}`, number, samples);
      try {
        const result = decode(input, new Random(`${seed}/${name}/${number}`));
        if (result instanceof Promise) await result;
      } catch (error) {
        refused += 1;
        if (error instanceof XcoreError && codes.includes(error.code)) continue;
        bad = `input ${number}, ${input.subarray(0, 64).toString('hex')}: ${error instanceof Error ? error.stack : String(error)}`;
      }
    }
    t.equal(bad, undefined, `${name}: ${each} inputs, ${refused} refused`);
  }
  t.ok((await bytesInUse()) - before < MAX_GROWTH_BYTES, 'memory');
});

t.test('a frame that comes byte by byte takes no more memory than its bytes', async (t) => {
  const size = 1 << 20;
  const bytes = encodeFrame(Buffer.alloc(size, 7));
  const decoder = new FrameDecoder(size);
  const before = await bytesInUse();
  for (let at = 0; at < bytes.length - 1; at += 1) decoder.push(new Uint8Array(bytes.subarray(at, at + 1)));
  t.ok((await bytesInUse()) - before < 4 * size, 'while it is incomplete');
  decoder.push(bytes.subarray(bytes.length - 1));
  t.ok(decoder.next()?.equals(Buffer.alloc(size, 7)));
});
