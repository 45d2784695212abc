// Writes many shards into a bridge's store, through the bridge's own records and keys, as receipts and hashed keys would
// have left them: in the order of the keys, so that ten million of them take minutes, or as they come.

import { randomBytes, randomFillSync } from 'node:crypto';
import type { HostRegistry } from '../../src/bridge/host-registry.ts';
import { STOCK_KEYS } from '../../src/bridge/hashed-keys.ts';
import { encodeNumber, mirrorKey, shardKey, shareKey, stockKey } from '../../src/bridge/keys.ts';
import { MAX_SHARD_BYTES } from '../../src/bridge/policy.ts';
import { mirrorRecord, shardRecord, stockRecord, volumeRecord } from '../../src/bridge/records.ts';
import { packShard } from '../../src/bridge/shard-packing.ts';
import { Volumes } from '../../src/bridge/volumes.ts';
import { publicKeyOf } from '../../src/crypto/sign.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { KeyedQueue } from '../../src/lib/keyed-queue.ts';
import type { Store, StoreWrite } from '../../src/lib/store.ts';
import { Party } from '../bridge/harness.ts';

/** Of each shard. */
const MIRRORS = 4;
const SHARDS_PER_VOLUME = 100_000;
const WRITES_PER_BATCH = 5_000;
const SHARDS_PER_BATCH = 100;
const ID_BYTES = 32;

/** Where shards are written, and who holds them. */
export interface Filled {
  readonly store: Store;
  readonly registry: HostRegistry;
  readonly hosts: readonly string[];
  readonly nowMs: number;
}

/** Shards that are to be written: ids in ascending order, and the first host of each. */
interface Shards {
  readonly count: number;
  readonly ids: Buffer;
  readonly firsts: Uint32Array;
  readonly owners: readonly {
    readonly volume: Uint8Array;
    readonly stock: Form;
    readonly shard: ReturnType<typeof shardForm>;
  }[];
}

/** Writes so many shards in the order of their keys. */
export async function fillSorted(filled: Filled, count: number): Promise<void> {
  const shards = makeShards(filled, count);
  const writer = new BatchWriter(filled.store);
  for (let n = 0; n < count; n += 1) {
    writer.add(stockOf(shards, n));
    if (writer.isFull) await writer.send();
  }
  const byHost = shardsByHost(filled, shards);
  const inOrder = [...filled.hosts.keys()].sort((a, b) => (filled.hosts[a]! < filled.hosts[b]! ? -1 : 1));
  for (const at of inOrder) {
    const start = mirrorKey(filled.hosts[at]!, new Uint8Array());
    for (const n of byHost(at)) {
      const key = Buffer.concat([start, idOf(shards, n)]);
      writer.add({ key, value: PRESENT });
      if (writer.isFull) await writer.send();
    }
  }
  for (let n = 0; n < count; n += 1) {
    writer.add(shardOf(filled, shards, n));
    if (writer.isFull) await writer.send();
  }
  await writer.end();
  await writeTotals(filled, shards);
}

/** Writes so many shards one after another, each with all that belongs to it. */
export async function fillAsTheyCome(filled: Filled, count: number): Promise<void> {
  const shards = makeShards(filled, count);
  const order = Uint32Array.from({ length: count }, (_, n) => n);
  for (let n = count - 1; n > 0; n -= 1) {
    const other = Math.floor(Math.random() * (n + 1));
    [order[n], order[other]] = [order[other]!, order[n]!];
  }
  let writes: StoreWrite[] = [];
  for (const [done, n] of order.entries()) {
    writes.push(stockOf(shards, n), shardOf(filled, shards, n));
    for (let at = 0; at < mirrorsOf(filled); at += 1) {
      writes.push({ key: mirrorKey(filled.hosts[holderOf(filled, shards, n, at)]!, idOf(shards, n)), value: PRESENT });
    }
    if (done % SHARDS_PER_BATCH === 0) await filled.store.batch(writes.splice(0));
  }
  writes = writes.splice(0);
  await filled.store.batch(writes);
  await writeTotals(filled, shards);
}

/** Writes in batches, one of which is under way while the next one is made. */
class BatchWriter {
  readonly #store: Store;
  #writes: StoreWrite[] = [];
  #underWay: Promise<void> = Promise.resolve();

  constructor(store: Store) {
    this.#store = store;
  }

  get isFull(): boolean {
    return this.#writes.length >= WRITES_PER_BATCH;
  }

  add(write: StoreWrite): void {
    this.#writes.push(write);
  }

  async send(): Promise<void> {
    await this.#underWay;
    this.#underWay = this.#store.batch(this.#writes);
    this.#writes = [];
  }

  async end(): Promise<void> {
    await this.send();
    await this.#underWay;
  }
}

const PRESENT = Uint8Array.of(1);
const pool = randomBytes(2 ** 20);
let poolAt = 0;

/** Random bytes, good until the next million of them is taken. */
function someBytes(length: number): Uint8Array {
  if (poolAt + length > pool.length) {
    randomFillSync(pool);
    poolAt = 0;
  }
  poolAt += length;
  return pool.subarray(poolAt - length, poolAt);
}

function makeShards(filled: Filled, count: number): Shards {
  const { hosts } = filled;
  const ids = Buffer.allocUnsafe(count * ID_BYTES);
  const firsts = new Uint32Array(count);
  for (let n = 0; n < count; n += 1) {
    ids.set(someBytes(ID_BYTES), n * ID_BYTES);
    ids.writeUIntBE(Math.floor(((n + Math.random()) / count) * 2 ** 48), n * ID_BYTES, 6);
    firsts[n] = Math.floor(Math.random() * hosts.length);
  }
  const owners = Array.from({ length: Math.ceil(count / SHARDS_PER_VOLUME) }, () => {
    const { seed, peer } = new Party();
    const volume = publicKeyOf(seed);
    return { volume, stock: stockForm(peer), shard: shardForm(filled, volume, peer) };
  });
  return { count, ids, firsts, owners };
}

function idOf({ ids }: Pick<Shards, 'ids'>, n: number): Uint8Array {
  return ids.subarray(n * ID_BYTES, (n + 1) * ID_BYTES);
}

function mirrorsOf({ hosts }: Filled): number {
  return Math.min(MIRRORS, hosts.length);
}

/** Which host has a mirror, as its place among all. */
function holderOf({ hosts }: Filled, { firsts }: Shards, n: number, at: number): number {
  return (firsts[n]! + at * 997) % hosts.length;
}

/** The shards of each host, ascending. */
function shardsByHost(filled: Filled, shards: Shards): (host: number) => Uint32Array {
  const ends = new Uint32Array(filled.hosts.length);
  const each = (action: (host: number, n: number) => void): void => {
    for (let n = 0; n < shards.count; n += 1)
      for (let at = 0; at < mirrorsOf(filled); at += 1) action(holderOf(filled, shards, n, at), n);
  };
  each((host) => (ends[host]! += 1));
  let sum = 0;
  const starts = ends.map((length) => (sum += length) - length);
  ends.set(starts);
  const all = new Uint32Array(sum);
  each((host, n) => (all[ends[host]!++] = n));
  return (host) => all.subarray(starts[host], ends[host]);
}

function stockOf({ ids, owners }: Pick<Shards, 'ids' | 'owners'>, n: number): StoreWrite {
  const { stock } = owners[n % owners.length]!;
  const value = Buffer.from(stock.bytes);
  for (const [at, length] of stock.places) value.set(someBytes(length), at);
  return { key: stockKey(idOf({ ids }, n)), value };
}

function shardOf(filled: Filled, shards: Shards, n: number): StoreWrite {
  const { shard } = shards.owners[n % shards.owners.length]!;
  const value = Buffer.from(shard.bytes);
  for (const [at, length] of shard.places) value.set(someBytes(length), at);
  for (const [mirror, at] of shard.numbers.entries()) {
    const number = filled.registry.numberOf(filled.hosts[holderOf(filled, shards, n, mirror)]!);
    value[at] = (number & 0x7f) | 0x80;
    value[at + 1] = number >> 7;
  }
  return { key: shardKey(idOf(shards, n)), value };
}

/** A record as it is stored, and where it has the bytes that differ from one to the next. */
interface Form {
  readonly bytes: Buffer;
  readonly places: readonly (readonly [at: number, length: number])[];
}

function formOf(bytes: Uint8Array, differing: readonly Uint8Array[]): Form {
  const all = Buffer.from(bytes);
  return { bytes: all, places: differing.map((part) => [all.indexOf(part), part.length] as const) };
}

/** Of the hashed keys of a volume's shards. */
function stockForm(minter: string): Form {
  const keys = randomBytes(STOCK_KEYS * 48);
  return formOf(stockRecord.encode(stockRecord.make({ minter, keys })), [keys]);
}

/** Of a volume's shards; numbers of hosts take two bytes, at `numbers`. */
function shardForm(filled: Filled, volume: Uint8Array, device: string): Form & { readonly numbers: number[] } {
  const nowMs = BigInt(filled.nowMs);
  const parts: Uint8Array[] = [];
  const mirrors = Array.from({ length: mirrorsOf(filled) }, () => {
    const [serial, signature] = [randomBytes(16), randomBytes(64)];
    parts.push(serial, signature);
    return mirrorRecord.make({ host: 'x', countedMs: nowMs, receiptMs: nowMs, serial, signature });
  });
  const fields = { volume, device, sizeBytes: MAX_SHARD_BYTES, minReceipts: 3, addedSeq: 1n, confirmedMs: nowMs };
  const anyNumber = { numberOf: () => 10_000, hostNumbered: () => undefined };
  const form = formOf(packShard(shardRecord.make({ ...fields, mirrors }), anyNumber), parts);
  // Field 7 stands before the serial, field 8: a tag, two bytes of number, a tag and a length.
  const numbers = form.places.filter((_, at) => at % 2 === 0).map(([at]) => at - 4);
  return { ...form, numbers };
}

/** What the bridge counts for each host and volume. */
async function writeTotals(filled: Filled, shards: Shards): Promise<void> {
  const { store, registry, hosts } = filled;
  const volumes = new Volumes(
    { store, clock: systemClock, volumeQueue: new KeyedQueue(1) },
    { maxVolumes: 1, quotaBytes: 1, forgetAfterMs: Infinity },
  );
  const perHost = new Uint32Array(hosts.length);
  for (let n = 0; n < shards.count; n += 1)
    for (let at = 0; at < mirrorsOf(filled); at += 1) perHost[holderOf(filled, shards, n, at)]! += 1;
  hosts.forEach((host, at) => registry.assigned(host, perHost[at]!, perHost[at]! * MAX_SHARD_BYTES));
  for (const { volume } of shards.owners) {
    // As if each volume had the same share of every host.
    const share = (number: number): bigint => BigInt(Math.ceil((number * MAX_SHARD_BYTES) / shards.owners.length));
    const writes = hosts.map((host, at) => ({ key: shareKey(volume, host), value: encodeNumber(share(perHost[at]!)) }));
    const usedBytes = share(shards.count);
    await store.batch(
      [...writes, volumes.put(volume, volumeRecord.make({ headHash: new Uint8Array(32), usedBytes }))],
      {
        sync: true,
      },
    );
  }
}
