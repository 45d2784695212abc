// A store in memory, for the servers of a simulated world: what was not synced may be lost with the power, newest first.

import type { Store, StoreRange, StoreWrite } from '../../src/lib/store.ts';
import type { SimProcess } from './process.ts';
import type { Luck } from './luck.ts';

const READ_MS = 0.05;
const WRITE_MS = 0.2;
const SYNC_MS = 2;

/** What lies on a disk of one machine, over restarts of its processes. */
export class SimStorage {
  /** Keys as latin1, in byte order. */
  #keys: string[] = [];
  readonly #values = new Map<string, Uint8Array>();
  /** What each batch since the last sync replaced. */
  #unsynced: Map<string, Uint8Array | undefined>[] = [];
  /** Probability that an operation fails. */
  faults = 0;

  /** The store as one process uses it. */
  openFor(process: SimProcess): Store {
    return new SimStore(this, process);
  }

  /** A copy of all that is here, as a backup is. */
  copy(): SimStorage {
    const copy = new SimStorage();
    copy.#keys = [...this.#keys];
    for (const [key, value] of this.#values) copy.#values.set(key, value);
    return copy;
  }

  /** Has nothing but what is in a copy from then on. */
  restore(copy: SimStorage): void {
    this.#keys = [...copy.#keys];
    this.#values.clear();
    for (const [key, value] of copy.#values) this.#values.set(key, value);
    this.#unsynced = [];
  }

  /** Loses some of the batches that were not synced, the newest ones. */
  losePower(luck: Luck): void {
    const kept = luck.below(this.#unsynced.length + 1);
    for (const before of this.#unsynced.splice(kept).reverse()) {
      for (const [key, value] of before) this.#set(key, value);
    }
    this.#unsynced = [];
  }

  get(key: string): Uint8Array | undefined {
    return this.#values.get(key);
  }

  apply(writes: readonly StoreWrite[], sync: boolean): void {
    const before = new Map<string, Uint8Array | undefined>();
    for (const { key, value } of writes) {
      const name = textOf(key);
      if (!before.has(name)) before.set(name, this.#values.get(name));
      this.#set(name, value && Uint8Array.from(value));
    }
    if (sync) this.#unsynced = [];
    else this.#unsynced.push(before);
  }

  /** Pairs as they are now. */
  pairs({ from, to, limit = Infinity }: StoreRange): [Uint8Array, Uint8Array][] {
    const end = textOf(to);
    const found: [Uint8Array, Uint8Array][] = [];
    for (let at = this.#indexOf(textOf(from)); at < this.#keys.length && found.length < limit; at += 1) {
      const key = this.#keys[at]!;
      if (key >= end) break;
      found.push([Buffer.from(key, 'latin1'), this.#values.get(key)!]);
    }
    return found;
  }

  #set(key: string, value: Uint8Array | undefined): void {
    const known = this.#values.has(key);
    if (value) this.#values.set(key, value);
    else this.#values.delete(key);
    if (known === (value !== undefined)) return;
    this.#keys.splice(this.#indexOf(key), known ? 1 : 0, ...(known ? [] : [key]));
  }

  /** Index of the first key that is not before this one. */
  #indexOf(key: string): number {
    let [low, high] = [0, this.#keys.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#keys[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

class SimStore implements Store {
  readonly #storage: SimStorage;
  readonly #process: SimProcess;
  /** Batches take effect in the order in which they were made. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(storage: SimStorage, process: SimProcess) {
    this.#storage = storage;
    this.#process = process;
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return (await this.getMany([key]))[0];
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    const names = keys.map(textOf);
    return this.#process.step(READ_MS, () => {
      this.#mayFail();
      return names.map((name) => this.#storage.get(name));
    });
  }

  async *range(range: StoreRange): AsyncGenerator<readonly [Uint8Array, Uint8Array]> {
    const pairs = await this.#process.step(READ_MS, () => {
      this.#mayFail();
      return this.#storage.pairs(range);
    });
    yield* pairs;
  }

  batch(writes: readonly StoreWrite[], options: { readonly sync?: boolean } = {}): Promise<void> {
    const { scheduler, name, luck } = this.#process;
    const sync = options.sync ?? false;
    const done = this.#last.then(() =>
      this.#process.step(sync ? SYNC_MS * (0.5 + luck.next()) : WRITE_MS, () => {
        this.#mayFail();
        this.#storage.apply(writes, sync);
        scheduler.trace(`${name} store ${writes.length} ${sync}`);
      }),
    );
    this.#last = done.catch(() => {});
    return done;
  }

  async close(): Promise<void> {
    await this.#last;
  }

  #mayFail(): void {
    const { faults } = this.#storage;
    if (faults > 0 && this.#process.luck.chance(faults)) throw new Error('IO error: simulated');
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}
