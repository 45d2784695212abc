// What the servers ask of the place where their state lies: ordered binary keys, binary values and
// atomic batches. Knows no database; src/lib/level-store.ts is the one in use.

/** One change of a batch; an absent value deletes the key. */
export interface StoreWrite {
  readonly key: Uint8Array;
  readonly value?: Uint8Array;
}

/** Keys in [from, to), in byte order. */
export interface StoreRange {
  readonly from: Uint8Array;
  readonly to: Uint8Array;
  readonly limit?: number;
}

/** An ordered key-value store that several callers use side by side. */
export interface Store {
  /** Why nothing can be stored now; undefined when all is well. */
  readonly failure?: Error | undefined;
  get(key: Uint8Array): Promise<Uint8Array | undefined>;
  /** Values in the order of the keys; undefined where there is none. */
  getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]>;
  /** Pairs in key order, as of the moment of the first one. */
  range(range: StoreRange): AsyncIterable<readonly [Uint8Array, Uint8Array]>;
  /** Applies all writes or none; `sync` waits until a power cut cannot undo them. */
  batch(writes: readonly StoreWrite[], options?: { readonly sync?: boolean }): Promise<void>;
  close(): Promise<void>;
}
