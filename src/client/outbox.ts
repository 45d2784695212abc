// Which commits can be published next: the longest run whose shards are all durable, merged into
// one set of changes.

import { changesOf } from '../tree/change-set-bytes.ts';
import type { ReadChange } from '../tree/change-set-bytes.ts';
import type { Window } from '../tree/extents.ts';
import { decodeNumber, KIND, keyBytes, outboxKey, shardKeyOf } from '../tree/keys.ts';
import { decodeRecord, encodeRecord } from '../tree/record-codec.ts';
import type { Shard } from '../tree/records.ts';
import type { Tree } from '../tree/tree.ts';

/** Changes after which a run is long enough for one entry. */
export const ENTRY_TARGET_BYTES = 1024 * 1024;

/** A run of commits as one change. */
export interface Publication {
  /** Record key to plaintext, null for a deletion. */
  readonly changes: Map<string, Uint8Array | null>;
  readonly lastCommit: number;
  /** Shards that no entry named before. */
  readonly added: { shard: number; id: Uint8Array; sizeBytes: number }[];
  /** Shards that nothing refers to any more. */
  readonly freed: { shard: number; id: Uint8Array }[];
}

/** What is found when nothing can be published. */
export interface Blocked {
  /** Shards that must become durable, or die, for all that was looked at; it ends with the first commit that waits for one that lives. */
  readonly waitsFor: number[];
  /** Those of the first commit that waits. */
  readonly firstWaitsFor: number[];
  /** What was looked at fills an entry already: reading on would not help. */
  readonly isFull: boolean;
}

/** One commit of the outbox. */
export interface Step {
  readonly commit: number;
  readonly changes: readonly ReadChange[];
}

/** Counts which shards the merged windows refer to, and knows at any time which of them are staged. */
export class References {
  readonly #isStaged: (shard: number) => boolean;
  readonly #windows = new Map<string, readonly number[]>();
  readonly #counts = new Map<number, number>();
  readonly #staged = new Set<number>();

  constructor(isStaged: (shard: number) => boolean) {
    this.#isStaged = isStaged;
  }

  set(key: string, value: Uint8Array | null): void {
    const before = this.#windows.get(key) ?? [];
    const shards = value === null ? [] : (decodeRecord(KIND.window, value, 0) as Window).shards;
    this.#windows.set(key, shards);
    for (const shard of shards) this.#count(shard, 1);
    for (const shard of before) this.#count(shard, -1);
  }

  #count(shard: number, change: number): void {
    const before = this.#counts.get(shard) ?? 0;
    const count = before + change;
    if (count > 0) this.#counts.set(shard, count);
    else this.#counts.delete(shard);
    if (before === 0 && this.#isStaged(shard)) this.#staged.add(shard);
    else if (count === 0) this.#staged.delete(shard);
  }

  /** A shard counts as staged no more. */
  ignore(shard: number): void {
    this.#staged.delete(shard);
  }

  get shards(): number[] {
    return [...this.#counts.keys()];
  }

  get staged(): ReadonlySet<number> {
    return this.#staged;
  }
}

/** Whether a shard is dead, and its bytes are nowhere any more: no entry can end while it lives. */
export function isGone(tree: Tree, shard: number): boolean {
  return tree.isLost(shard) && tree.shard(shard)?.liveBytes === 0;
}

/** Whether a shard is to be stored, and something refers to it now. */
export function isAlive(tree: Tree, shard: number): boolean {
  return tree.isStaged(shard) && tree.shard(shard)?.liveBytes !== 0;
}

/** Commits that are not published, oldest first. */
export async function* stepsOf(tree: Tree): AsyncGenerator<Step> {
  const from = keyBytes(outboxKey(tree.store.firstUnpublished));
  for await (const { value, key } of tree.store.plaintexts(KIND.outbox, { from })) {
    yield { commit: decodeNumber(key, 1), changes: changesOf(value) };
  }
}

/**
 * Merges commits from the oldest on, up to `boundary`, and stops where an entry is full. Null when
 * there is nothing to publish.
 */
export async function nextPublication(
  tree: Tree,
  boundary: number,
  targetBytes = ENTRY_TARGET_BYTES,
): Promise<Publication | Blocked | null> {
  const references = new References((shard) => tree.isStaged(shard) || isGone(tree, shard));
  const waitsFor = references.staged;
  const merged = new Map<string, Uint8Array | null>();
  let publishable: number | null = null;
  let firstWaitsFor: number[] = [];
  let sizeBytes = 0;
  for await (const { commit, changes } of stepsOf(tree)) {
    if (commit > boundary) break;
    for (const { key, value } of changes) {
      merged.set(key, value);
      sizeBytes += key.length + (value?.length ?? 0) + 8;
      if (key.startsWith(KIND.window)) references.set(key, value);
    }
    if (waitsFor.size === 0) {
      publishable = commit;
    } else {
      if (firstWaitsFor.length === 0) firstWaitsFor = [...waitsFor];
      // it will be durable, and what follows is read then: a writer at work would have it read again and again
      if ([...waitsFor].some((shard) => isAlive(tree, shard))) break;
    }
    if (sizeBytes > targetBytes && ![...waitsFor].some((shard) => isGone(tree, shard))) break;
  }
  if (publishable === null)
    return waitsFor.size > 0 ? { waitsFor: [...waitsFor], firstWaitsFor, isFull: sizeBytes > targetBytes } : null;
  // what was merged after the last publishable commit must not be part of it
  if (waitsFor.size > 0) return replayTo(tree, publishable);
  return complete(tree, merged, publishable, references.shards);
}

async function replayTo(tree: Tree, lastCommit: number): Promise<Publication> {
  const references = new References(() => false);
  const merged = new Map<string, Uint8Array | null>();
  for await (const { commit, changes } of stepsOf(tree)) {
    if (commit > lastCommit) break;
    for (const { key, value } of changes) {
      merged.set(key, value);
      if (key.startsWith(KIND.window)) references.set(key, value);
    }
  }
  return complete(tree, merged, lastCommit, references.shards);
}

/** Adds what only became known after the commits: shard ids, and which shards died. */
function complete(
  tree: Tree,
  changes: Map<string, Uint8Array | null>,
  lastCommit: number,
  referenced: readonly number[],
): Publication {
  const freed: Publication['freed'] = [];
  for (const [key, value] of changes) {
    if (!key.startsWith(KIND.shard) || value === null) continue;
    const shard = decodeNumber(key, 1);
    const current = tree.shard(shard);
    const then = decodeRecord(KIND.shard, value, shard) as Shard;
    // one that was open then may have come to life again, and died, in commits that are not part of this
    if (current === undefined || (then.liveBytes === 0 && then.id.length > 0)) {
      if (current !== undefined) freed.push({ shard, id: current.id });
      changes.set(key, null);
    } else if (current.id.length > 0) {
      changes.set(key, encodeRecord(KIND.shard, { ...then, id: current.id, sizeBytes: current.sizeBytes }));
    }
  }
  const added: Publication['added'] = [];
  for (const shard of referenced) {
    const current = tree.shard(shard);
    // a shard that was lost with the power is on no host
    if (current === undefined || tree.upload(shard) === undefined || tree.isLost(shard)) continue;
    added.push({ shard, id: current.id, sizeBytes: current.sizeBytes });
    // an entry must carry the record of each shard that it adds
    const key = shardKeyOf(shard);
    if (!changes.has(key)) changes.set(key, encodeRecord(KIND.shard, current));
  }
  return { changes, lastCommit, added, freed };
}
