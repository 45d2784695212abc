// The record of each volume: head of its log, quota, lease. Knows nothing of what these mean.

import { XcoreError } from '../lib/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { isForgettable } from './forgetting.ts';
import { ofKind, volumeKey } from './keys.ts';
import type { VolumeRecord } from './proto/records_pb.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import { hexOf, volumeRecord } from './records.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

/** All volumes are looked at when the bridge is full, but not with each one that it refuses. */
const LOOK_AGAIN_MS = 60_000;
const FORGOTTEN_AT_ONCE = 1_000;

/** Bounds of the volumes of one bridge. */
export interface VolumesOptions {
  readonly maxVolumes: number;
  /** A volume in which nothing is gives way to a new one so long after somebody was last to write it. */
  readonly forgetAfterMs: number;
  /** Of a volume whose record names none. */
  readonly quotaBytes: number;
}

/** What volumes work with. */
export interface VolumesComponents {
  readonly store: Store;
  readonly clock: Clock;
  readonly volumeQueue: KeyedQueue;
}

/** Loads and writes volume records; callers serialise their changes to one volume. */
export class Volumes {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #volumeQueue: KeyedQueue;
  readonly #options: VolumesOptions;
  #count = 0;
  /** Of volumes whose owners have said how many mirrors they want; at most one entry for each volume. */
  readonly #mirrors = new Map<string, number>();

  #mayLookAgainMs = 0;

  constructor(components: VolumesComponents, options: VolumesOptions) {
    this.#store = components.store;
    this.#clock = components.clock;
    this.#volumeQueue = components.volumeQueue;
    this.#options = options;
  }

  /** Counts what is stored. */
  async load(): Promise<void> {
    for await (const [key, value] of this.#store.range(ofKind('v'))) {
      this.#count += 1;
      const { mirrors } = volumeRecord.decode(value);
      if (mirrors > 0) this.#mirrors.set(hexOf(key.subarray(1)), mirrors);
    }
  }

  /** Volumes known. */
  get count(): number {
    return this.#count;
  }

  /** The stored record, or a fresh one that is not stored yet. */
  async get(volume: Uint8Array): Promise<VolumeRecord> {
    const bytes = await this.#store.get(volumeKey(volume));
    return bytes ? volumeRecord.decode(bytes) : volumeRecord.make({ headHash: new Uint8Array(32) });
  }

  /** The write that stores the record. */
  put(volume: Uint8Array, record: VolumeRecord): StoreWrite {
    return { key: volumeKey(volume), value: volumeRecord.encode(record) };
  }

  /** Makes a volume's first record; REFUSED when the bridge has all the volumes it takes. */
  async ensure(volume: Uint8Array): Promise<void> {
    const key = volumeKey(volume);
    if (await this.#store.get(key)) return;
    if (this.#count >= this.#options.maxVolumes) await this.#makeRoom();
    this.#count += 1;
    const touchedMs = BigInt(this.#clock.now());
    await this.#store.batch([this.put(volume, volumeRecord.make({ headHash: new Uint8Array(32), touchedMs }))]);
  }

  /** Forgets volumes in which nothing is; REFUSED when there are none. */
  async #makeRoom(): Promise<void> {
    const now = this.#clock.now();
    const before = this.#count;
    if (now >= this.#mayLookAgainMs) {
      this.#mayLookAgainMs = now + LOOK_AGAIN_MS;
      const sinceMs = now - this.#options.forgetAfterMs;
      for await (const [key, value] of this.#store.range(ofKind('v'))) {
        if (isForgettable(volumeRecord.decode(value), sinceMs)) await this.#forget(key.slice(1), sinceMs);
        if (before - this.#count >= FORGOTTEN_AT_ONCE) break;
      }
    }
    if (this.#count >= before) throw new XcoreError('REFUSED', 'this bridge takes no further volumes');
  }

  async #forget(volume: Uint8Array, sinceMs: number): Promise<void> {
    const name = hexOf(volume);
    await this.#volumeQueue.run(name, async () => {
      // its owner may have come back just now
      if (!isForgettable(await this.get(volume), sinceMs)) return;
      await this.#store.batch([{ key: volumeKey(volume) }]);
      this.#mirrors.delete(name);
      this.#count -= 1;
    });
  }

  /** Mirrors that the owner wants of each shard; 0: nothing was said. */
  mirrorsOf(volume: Uint8Array): number {
    return this.#mirrors.get(hexOf(volume)) ?? 0;
  }

  /** Notes what the owner wants. */
  async setMirrors(volume: Uint8Array, mirrors: number): Promise<void> {
    if (this.mirrorsOf(volume) === mirrors) return;
    const record = await this.get(volume);
    record.mirrors = mirrors;
    await this.#store.batch([this.put(volume, record)]);
    this.#mirrors.set(hexOf(volume), mirrors);
  }

  /** The volume's quota. */
  quotaOf(record: VolumeRecord): bigint {
    return record.quotaBytes > 0n ? record.quotaBytes : BigInt(this.#options.quotaBytes);
  }
}
