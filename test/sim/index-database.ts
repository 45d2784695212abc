// A database beneath the index of a simulated device, in the place of LevelDB: in memory, in a folder of the simulated
// disk. What was not synced may be lost with the power, newest first; a batch that failed is there or not.

import { XcoreError } from '../../src/lib/errors.ts';
import type { BatchOperation, IndexBase, StoreSnapshot } from '../../src/tree/index-database.ts';
import type { OpenDatabase } from '../../src/tree/open-database.ts';
import type { SimDisk } from './disk.ts';
import type { SimProcess } from './process.ts';
import { SimStorage } from './store.ts';

const READ_MS = 0.05;
const WRITE_MS = 0.2;
const SYNC_MS = 3;
/** Now and then LevelDB makes others wait while it merges its tables. */
const SHARE_STALLED = 0.02;
const STALL_MS = [5, 500] as const;

type Range = Parameters<IndexBase['lists']>[0];

/** Opens databases in folders of a disk, for one process. */
export function databasesOn(disk: SimDisk, process: SimProcess): OpenDatabase {
  return async (dir) => {
    const storage = await process.step(1, () => {
      if (disk.faults > 0 && process.luck.chance(disk.faults)) throw new XcoreError('EIO', 'simulated');
      if (!disk.find(dir)) disk.make(dir);
      return (disk.folder(dir).storage ??= new SimStorage());
    });
    const db = new SimDatabase(storage, disk, process);
    return { db, whole: () => null, close: () => db.close() };
  };
}

class Snapshot implements StoreSnapshot {
  readonly storage: SimStorage;

  constructor(storage: SimStorage) {
    this.storage = storage;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

class SimDatabase implements IndexBase {
  readonly #storage: SimStorage;
  readonly #disk: SimDisk;
  readonly #process: SimProcess;
  #broken = false;
  #closed = false;

  constructor(storage: SimStorage, disk: SimDisk, process: SimProcess) {
    this.#storage = storage;
    this.#disk = disk;
    this.#process = process;
  }

  get(key: Buffer): Buffer | undefined {
    this.#assertOpen();
    const value = this.#storage.get(key.toString('latin1'));
    return value && Buffer.from(value);
  }

  readable(): Promise<void> {
    return Promise.resolve();
  }

  async ready(): Promise<boolean> {
    if (!this.#broken) return false;
    await this.#process.step(1, () => this.#mayFail());
    this.#broken = false;
    return true;
  }

  async write(operations: BatchOperation[], sync: boolean): Promise<void> {
    this.#assertOpen();
    const { luck, scheduler, name } = this.#process;
    const writes = operations.map((op) => (op.type === 'put' ? { key: op.key, value: op.value } : { key: op.key }));
    await this.#process.step(this.#stallMs() + (sync ? SYNC_MS * (0.5 + luck.next()) : WRITE_MS), () => {
      try {
        this.#mayFail();
      } catch (error) {
        this.#broken = true;
        if (luck.chance(0.5)) this.#storage.apply(writes, false);
        throw error;
      }
      this.#storage.apply(writes, sync);
      scheduler.trace(`${name} index ${writes.length} ${sync}`);
    });
  }

  async *lists(range: Range, batch: number): AsyncGenerator<[Buffer, Buffer][]> {
    this.#assertOpen();
    if (range.reverse === true) throw new TypeError('not simulated');
    const { storage } = (range.snapshot as Snapshot | undefined) ?? { storage: this.#storage };
    const { gte, lt, limit } = range;
    const pairs = storage.pairs({ from: gte, to: lt, ...(limit !== undefined && { limit }) });
    for (let at = 0; at < pairs.length; at += batch) {
      const list = pairs.slice(at, at + batch);
      yield await this.#process.step(this.#stallMs() + READ_MS, () => {
        this.#mayFail();
        this.#assertOpen();
        return list.map(([key, value]): [Buffer, Buffer] => [Buffer.from(key), Buffer.from(value)]);
      });
    }
  }

  snapshot(): StoreSnapshot {
    return new Snapshot(this.#storage.copy());
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #assertOpen(): void {
    if (this.#closed) throw new XcoreError('CLOSED', 'the index is closed');
  }

  #stallMs(): number {
    const { luck } = this.#process;
    return luck.chance(SHARE_STALLED) ? luck.between(...STALL_MS) : 0;
  }

  #mayFail(): void {
    const { luck } = this.#process;
    if (this.#disk.faults > 0 && luck.chance(this.#disk.faults)) {
      throw new XcoreError(luck.chance(0.5) ? 'ENOSPC' : 'EIO', 'simulated');
    }
  }
}
