// A store in LevelDB. Knows nothing of what is kept in it.

import type { BinaryLevel } from './open-level.ts';
import type { Store, StoreRange, StoreWrite } from './store.ts';

/** A store in an open database, which it closes. */
export class LevelStore implements Store {
  readonly #db: BinaryLevel;

  constructor(db: BinaryLevel) {
    this.#db = db;
  }

  get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#db.get(key);
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    return this.#db.getMany([...keys]);
  }

  range(range: StoreRange): AsyncIterable<readonly [Uint8Array, Uint8Array]> {
    return this.#db.iterator({ gte: range.from, lt: range.to, limit: range.limit ?? -1 });
  }

  batch(writes: readonly StoreWrite[], options: { readonly sync?: boolean } = {}): Promise<void> {
    return this.#db.batch(
      writes.map(({ key, value }) => (value ? { type: 'put', key, value } : { type: 'del', key })),
      { sync: options.sync ?? false },
    );
  }

  close(): Promise<void> {
    return this.#db.close();
  }
}
