// The real network of a client, and a note of the shards that go through it: what its owner stored, which of it the log
// names, and which of it an entry has freed.

import { fromBinary } from '@bufbuild/protobuf';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { entryHash } from '../../src/net/entry-hash.ts';
import type { Head, ShardSource, ShardStanding, WireEntry } from '../../src/net/network.ts';
import { EntryHeaderSchema } from '../../src/net/proto/wire_pb.ts';
import type { OwnedShard } from './client.ts';
import type { SimDisk } from './disk.ts';

/** The shards of one owner, by id. */
export type Shards = Map<string, OwnedShard>;

/** What one owner's devices have seen of the network. */
export interface Seen {
  readonly shards: Shards;
  /** Hashes of the entries that some device saw in the log, by number. */
  readonly entries: Map<bigint, string>;
  /** Two entries of one number were seen: a bridge had lost the first of them. */
  onFork: (seq: bigint) => void;
}

/** Notes what is uploaded from one disk. */
export class WatchedNetwork extends ClientNetwork {
  readonly #seen: Seen;
  readonly #disk: SimDisk;

  constructor(seen: Seen, disk: SimDisk, ...rest: ConstructorParameters<typeof ClientNetwork>) {
    super(...rest);
    this.#seen = seen;
    this.#disk = disk;
  }

  get #shards(): Shards {
    return this.#seen.shards;
  }

  override upload(shard: ShardSource, signal?: AbortSignal): Promise<ShardStanding> {
    const hex = hexOf(shard.id);
    const file = this.#disk.find(shard.path);
    if (!this.#shards.has(hex) && file?.kind === 'file') {
      const data = Buffer.from(file.data.subarray(0, shard.sizeBytes));
      const fresh = { stage: 'staged', promised: false, gone: false, addedSeq: 0n, freedSeq: 0n } as const;
      this.#shards.set(hex, { id: Buffer.from(shard.id), hex, data, ...fresh, mayDie: true, doomed: false });
    }
    return super.upload(shard, signal);
  }

  override async append(entry: WireEntry, again?: boolean): Promise<Head> {
    const { shardsFreed } = fromBinary(EntryHeaderSchema, entry.header);
    for (const id of shardsFreed) this.#change(id, { doomed: true });
    const head = await super.append(entry, again);
    this.#note(entry);
    return head;
  }

  override async readLog(...args: Parameters<ClientNetwork['readLog']>): ReturnType<ClientNetwork['readLog']> {
    const answer = await super.readLog(...args);
    for (const entry of answer.entries) this.#note(entry);
    return answer;
  }

  /** An entry is in the log. */
  #note({ header }: WireEntry): void {
    const { seq, shardsAdded, shardsFreed } = fromBinary(EntryHeaderSchema, header);
    const hash = hexOf(entryHash(header));
    const { entries, onFork } = this.#seen;
    if ((entries.get(seq) ?? hash) !== hash) onFork(seq);
    entries.set(seq, hash);
    for (const { shardId } of shardsAdded) {
      const shard = this.#shards.get(hexOf(shardId));
      if (shard?.stage === 'staged' && shard.doomed !== true)
        this.#change(shardId, { stage: 'published', promised: true, addedSeq: seq });
    }
    for (const id of shardsFreed) this.#change(id, { stage: 'freed', gone: true, freedSeq: seq });
  }

  #change(id: Uint8Array, change: Partial<OwnedShard>): void {
    const shard = this.#shards.get(hexOf(id));
    if (shard) Object.assign(shard, change);
  }
}

function hexOf(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}
