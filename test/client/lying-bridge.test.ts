// A bridge that lies about the log, as seen by a device that knows better: what it shows is refused,
// nothing of it is applied, what is here stays usable, and the truth is taken again afterwards.

import { randomBytes } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import t from 'tap';
import { EntryCodec } from '../../src/client/log-entry.ts';
import { deriveVolumeKeys } from '../../src/crypto/keys.ts';
import { generatePhrase } from '../../src/crypto/phrase.ts';
import type { Head, Network, WireEntry } from '../../src/net/network.ts';
import { ChangeSetSchema } from '../../src/tree/proto/tree_pb.ts';
import { unreachable, until, World } from './device.ts';
import type { Device, Wrap } from './device.ts';

t.setTimeout(240_000);

const world = await World.start(t, 2);
const none = Buffer.alloc(0);

interface Answer {
  readonly entries: WireEntry[];
  readonly head: Head;
}

/** Changes what the bridge answers; `old` are the entries before those. */
type Lie = (truth: Answer, old: readonly WireEntry[], seq: number) => Answer;

/** A network on which readings of bodies are answered by a lie. */
function telling(lie: Lie): Wrap {
  return (real: Network) => ({
    readLog: async (from, max, headersOnly) => {
      const truth = await real.readLog(from, max, headersOnly);
      const before = from > 1 ? (await real.readLog(1, 2 ** 21)).entries.slice(0, from - 1) : [];
      return lie(truth, before, from);
    },
  });
}

function flipped(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  copy[copy.length >> 1]! ^= 1;
  return copy;
}

/** An entry of anybody's making. */
function forged(
  codec: EntryCodec,
  seq: number,
  prevHash: Uint8Array,
  key = 'unknown',
): { wire: WireEntry; hash: Buffer } {
  const changes = [
    { key: Buffer.from('c'), value: none },
    { key: Buffer.from(key), value: none },
  ];
  const changeSet = create(ChangeSetSchema, { changes, lineage: randomBytes(16), lastCommit: 1n });
  const fields = { epoch: 9, device: 'other', timeMs: 0, added: [], freed: [], checkpointSeq: 0 };
  return codec.build({ seq, prevHash, changeSet, ...fields });
}

const stranger = new EntryCodec(await deriveVolumeKeys(generatePhrase()));
const volume = await world.volume();
const a = await volume.device(t).on();
let count = 0;

async function publish(entries: number): Promise<void> {
  for (let n = 0; n < entries; n++) {
    await a.write(`file ${count++}`, 'content');
    await a.flush();
  }
}

const withFirst = (truth: Answer, change: (first: WireEntry) => WireEntry): Answer => {
  const [first, ...rest] = truth.entries;
  return { ...truth, entries: first === undefined ? [] : [change(first), ...rest] };
};

const LIES: Record<string, { lie: Lie; code?: string }> = {
  'an older head than was seen': {
    lie: (_truth, old) => ({
      entries: [],
      head: { seq: old.length - 1, hash: randomBytes(32), checkpointEntrySeq: 0 },
    }),
  },
  'an empty log': { lie: () => ({ entries: [], head: { seq: 0, hash: Buffer.alloc(32), checkpointEntrySeq: 0 } }) },
  'another entry in the place of the newest that was seen': {
    lie: (_truth, old) => ({ entries: [], head: { seq: old.length, hash: randomBytes(32), checkpointEntrySeq: 0 } }),
  },
  'a head whose entries are not shown': { lie: (truth) => ({ ...truth, entries: [] }) },
  'two entries in the wrong order': {
    lie: ({ entries: [one, two, ...rest], head }) => ({ entries: [two!, one!, ...rest], head }),
  },
  'a log that lacks an entry': { lie: (truth) => ({ ...truth, entries: truth.entries.slice(1) }) },
  'an old entry again': { lie: (truth, old) => withFirst(truth, () => old.at(-1)!) },
  'a changed header': { lie: (truth) => withFirst(truth, (wire) => ({ ...wire, header: flipped(wire.header) })) },
  'a changed signature': {
    lie: (truth) => withFirst(truth, (wire) => ({ ...wire, signature: flipped(wire.signature) })),
  },
  'a changed body': { lie: (truth) => withFirst(truth, (wire) => ({ ...wire, body: flipped(wire.body) })) },
  'the body of another entry': {
    lie: (truth) => withFirst(truth, (wire) => ({ ...wire, body: truth.entries[1]!.body })),
  },
  'a body kept back that no checkpoint replaces': {
    lie: (truth) => withFirst(truth, (wire) => ({ ...wire, body: none })),
  },
  'an entry of another volume': {
    lie: (truth, _old, seq) => withFirst(truth, () => forged(stranger, seq, a.tree.head.hash).wire),
  },
  'a continuation of a log that was never seen': {
    lie: (truth, old, seq) => {
      const fork = forged(volume.codec, old.length, randomBytes(32));
      const { wire, hash } = forged(volume.codec, seq, fork.hash);
      return { entries: [wire], head: { ...truth.head, seq, hash } };
    },
  },
};

await t.test('a device that follows takes no lie, and the truth afterwards', async (t) => {
  await publish(2);
  const b = await volume.device(t).on();
  await b.reaches(a);
  for (const [name, { lie, code = 'FORKED_LOG' }] of Object.entries(LIES)) {
    b.wrap = () => ({ readLog: () => Promise.reject(unreachable()) });
    await publish(3);
    const { seq } = b.tree.head;
    const before = await b.records();
    b.wrap = telling(lie);
    await until(`${name} is noticed`, () => {
      b.sync.nudge();
      return b.problem(code) !== undefined;
    });
    const told = b.problems.list().filter((problem) => problem.code === code);
    t.match(told, [{ advice: /do not trust this bridge/ }], `${name}: the problem is named`);
    t.equal(b.tree.head.seq, seq, `${name}: it stays where it was`);
    t.strictSame(await b.records(), before, `${name}: nothing is applied`);
    t.equal(await b.text('file 0'), 'content', `${name}: what is here stays usable`);
    t.same(b.mounted.setAside, [], `${name}: nothing is moved`);
    b.wrap = () => ({});
    b.sync.nudge();
    await b.reaches(a);
    await until('the problem is over', () => b.problem(code) === undefined);
    t.strictSame(await b.records(), await a.records(), `${name}: the truth is taken`);
  }
});

await t.test('a device that starts while the bridge lies does not mount, and does when it stops', async (t) => {
  const b = await volume.device(t).on();
  await b.reaches(a);
  await b.off();
  await publish(3);
  for (const [name, { lie, code = 'FORKED_LOG' }] of Object.entries(LIES)) {
    b.wrap = telling(lie);
    await t.rejects(b.on(), { code }, name);
  }
  b.wrap = () => ({});
  await b.on();
  t.strictSame(await b.records(), await a.records());
});

await t.test('the writer itself takes no lie about its log', async (t) => {
  const own = await world.volume();
  const w = await own.device(t).on();
  await w.write('one', 'content');
  await w.flush();
  w.wrap = (real) => ({
    readLog: async (...args) => ({
      ...(await real.readLog(...args)),
      entries: [],
      head: { seq: 0, hash: none, checkpointEntrySeq: 0 },
    }),
    append: () => Promise.reject(unreachable()),
  });
  await w.write('two', 'staged');
  await until('it is noticed', () => w.problem('FORKED_LOG') !== undefined);
  t.equal(await w.text('two'), 'staged', 'what is staged stays');
  t.same(w.mounted.setAside, []);
  w.wrap = () => ({});
  await w.flush();
  t.equal((await w.log()).length, w.tree.head.seq, 'and is published to the true log');
});

await t.test('an entry that is not understood is refused whole', async (t) => {
  const own = await world.volume();
  const w = await own.device(t).on();
  await w.write('one', 'content');
  await w.flush();
  const b = await own.device(t).on();
  await b.reaches(w);
  const before = await b.records();
  const { seq, hash } = b.tree.head;
  const next = forged(own.codec, seq + 1, hash, 'a kind of a later version');
  b.wrap = () => ({
    readLog: async () => ({ entries: [next.wire], head: { seq: seq + 1, hash: next.hash, checkpointEntrySeq: 0 } }),
  });
  await world.stopBridge();
  await world.startBridge();
  await until('it is noticed', () => b.problem('BAD_FORMAT') !== undefined);
  t.strictSame(await b.records(), before);
  t.equal(b.tree.head.seq, seq);
});

async function withCheckpoint(w: Device): Promise<void> {
  const before = w.tree.head.checkpointSeq;
  for (let n = 0; w.tree.head.checkpointSeq === before; n++) {
    await w.write(`filler ${n % 3}`, randomBytes(500));
    await w.flush();
    await w.sync.nextStep();
  }
}

await t.test('no lie about a checkpoint brings a new device, or one that was away, elsewhere', async (t) => {
  const own = await world.volume();
  const w = await own.device(t, { checkpointLogBytes: 3_000 }).on();
  await w.write('one', 'content');
  await w.flush();
  const away = await own.device(t).on();
  await away.reaches(w);
  const before = await away.records();
  await away.off();
  await withCheckpoint(w);
  await withCheckpoint(w);
  const { head: real } = await w.network.readLog(1, 1, true);

  const lies: Record<string, Wrap> = {
    'an entry that is no checkpoint': (net) => ({
      readLog: async (...args) => {
        const answer = await net.readLog(...args);
        return { ...answer, head: { ...answer.head, checkpointEntrySeq: real.checkpointEntrySeq - 1 } };
      },
    }),
    'no checkpoint, though bodies are gone': (net) => ({
      readLog: async (...args) => {
        const answer = await net.readLog(...args);
        return { ...answer, head: { ...answer.head, checkpointEntrySeq: 0 } };
      },
    }),
    'a checkpoint that is not shown': (net) => ({
      readLog: async (from, ...rest) =>
        from === real.checkpointEntrySeq
          ? { ...(await net.readLog(from, ...rest)), entries: [] }
          : net.readLog(from, ...rest),
    }),
    'a checkpoint with a changed body': (net) => ({
      readLog: async (from, ...rest) => {
        const answer = await net.readLog(from, ...rest);
        return from === real.checkpointEntrySeq
          ? withFirst(answer, (wire) => (wire.body.length > 0 ? { ...wire, body: flipped(wire.body) } : wire))
          : answer;
      },
    }),
  };
  for (const [name, wrap] of Object.entries(lies)) {
    await t.rejects(own.device(t, { wrap }).on(), { code: 'FORKED_LOG' }, `${name}: a new device`);
    away.wrap = wrap;
    await t.rejects(away.on(), { code: 'FORKED_LOG' }, `${name}: one that was away`);
  }
  // the header chain between what it saw and the checkpoint
  away.wrap = (net) => ({
    readLog: async (from, max, headersOnly) => {
      const answer = await net.readLog(from, max, headersOnly);
      if (headersOnly !== true || answer.entries.length < 3) return answer;
      const [one, two, three, ...rest] = answer.entries;
      return { ...answer, entries: [one!, three!, two!, ...rest] };
    },
  });
  await t.rejects(away.on(), { code: 'FORKED_LOG' }, 'a broken chain to the checkpoint');
  away.wrap = (net) => ({
    readLog: async (from, max, headersOnly) => {
      const answer = await net.readLog(from, max, headersOnly);
      if (headersOnly !== true) return answer;
      return withFirst(answer, (wire) => (from === 1 ? wire : { ...wire, header: flipped(wire.header) }));
    },
  });
  await t.rejects(away.on(), { code: 'FORKED_LOG' }, 'a changed entry that it had seen');

  // with the bridge away, what it had is what it has
  away.wrap = () => ({ readLog: () => Promise.reject(unreachable()) });
  await away.on();
  t.strictSame(await away.records(), before, 'nothing of it was applied');
  away.wrap = () => ({});
  await away.sync.nextStep();
  await away.reaches(w);
  t.strictSame(await away.records(), await w.records(), 'the truth is taken');
});
