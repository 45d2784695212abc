// Work on a volume that follows from a seed, and all states that it goes through, so that what a crash
// leaves can be told from what it must not.

import { freeDeadSegments } from '../../src/client/dead-segments.ts';
import type { OpenVolume } from './volume.ts';
import { CALLER, readAll } from './volume.ts';
import type { Random } from './random.ts';

const S_IFDIR = 0o040000;
const MAX_FILES = 24;

/** Path to content; null for a folder. */
export type State = ReadonlyMap<string, Buffer | null>;

/** How far the work is, by numbers of states: what a crash may leave is one of them from `closed` or `synced` on. */
export class Progress {
  readonly states: State[] = [new Map()];
  closed = 0;
  synced = 0;

  get latest(): number {
    return this.states.length - 1;
  }
}

/** Works as long as `goOn` says so, which is asked before each step, from 0 on. */
export async function work(
  volume: OpenVolume,
  random: Random,
  goOn: (step: number) => boolean,
  progress: Progress,
  between: () => Promise<void> = async () => undefined,
): Promise<void> {
  const worker = new Worker(volume, random, progress);
  for (let step = 0; goOn(step); step++) {
    await worker.step();
    await between();
  }
}

class Worker {
  readonly #volume: OpenVolume;
  readonly #random: Random;
  readonly #progress: Progress;
  #made = 0;

  constructor(volume: OpenVolume, random: Random, progress: Progress) {
    this.#volume = volume;
    this.#random = random;
    this.#progress = progress;
  }

  get #state(): State {
    return this.#progress.states[this.#progress.latest]!;
  }

  /** The next state, told before it is brought about. */
  #will(change: (next: Map<string, Buffer | null>) => void): void {
    const next = new Map(this.#state);
    change(next);
    this.#progress.states.push(next);
  }

  #acknowledged(state: number, synced: boolean): void {
    const { closed, synced: before } = this.#progress;
    this.#progress.closed = Math.max(closed, state);
    if (synced) this.#progress.synced = Math.max(before, state);
  }

  async #place(path: string): Promise<[number, string]> {
    const parts = path.split('/');
    const name = parts.pop()!;
    let parent = 1;
    for (const part of parts) parent = (await this.#volume.vfs.lookup(parent, part))!.ino;
    return [parent, name];
  }

  async #ino(path: string): Promise<number> {
    return (await this.#volume.vfs.lookup(...(await this.#place(path))))!.ino;
  }

  #pick(kind: 'file' | 'folder'): string | null {
    const some = [...this.#state].filter(([, content]) => (content === null) === (kind === 'folder'));
    return some.length === 0 ? null : this.#random.pick(some)[0];
  }

  #fresh(): string {
    const folder = this.#random.below(2) === 0 ? this.#pick('folder') : null;
    return `${folder === null ? '' : `${folder}/`}n${this.#made++}`;
  }

  async step(): Promise<void> {
    const files = [...this.#state.values()].filter((content) => content !== null).length;
    const choice = this.#random.below(20);
    if (files < 3 || choice < 6) await (files < MAX_FILES ? this.#create() : this.#remove());
    else if (choice < 10) await this.#change();
    else if (choice < 12) await this.#rename();
    else if (choice < 14) await this.#remove();
    else if (choice < 15) await this.#folder();
    else if (choice < 16) await this.#cut();
    else if (choice < 18) await this.#sync();
    else await this.#settle();
  }

  async #create(): Promise<void> {
    const { vfs } = this.#volume;
    const path = this.#fresh();
    const [parent, name] = await this.#place(path);
    this.#will((next) => next.set(path, Buffer.alloc(0)));
    const { attributes, file } = await vfs.create(parent, name, 0o100644, 2, CALLER);
    await this.#write(path, attributes.ino, file.handle, this.#random.between(1, 4));
  }

  async #change(): Promise<void> {
    const path = this.#pick('file');
    if (path === null) return;
    const ino = await this.#ino(path);
    const file = await this.#volume.vfs.open(ino, 2);
    await this.#write(path, ino, file.handle, this.#random.between(1, 3));
  }

  async #write(path: string, ino: number, handle: number, writes: number): Promise<void> {
    const { vfs } = this.#volume;
    for (let n = 0; n < writes; n++) {
      const before = this.#state.get(path)!;
      const data = this.#random.bytes(this.#random.between(1, this.#random.below(4) === 0 ? 40_000 : 3_000));
      const offset = this.#random.pick([before.length, this.#random.below(before.length + 500)]);
      const after = Buffer.alloc(Math.max(before.length, offset + data.length));
      before.copy(after);
      data.copy(after, offset);
      this.#will((next) => next.set(path, after));
      await vfs.write(ino, handle, offset, data, false);
    }
    const state = this.#progress.latest;
    const synced = this.#random.below(4) === 0;
    if (synced) await vfs.fsync();
    else await vfs.flush(ino, handle);
    this.#acknowledged(state, synced);
    await vfs.release(ino, handle);
  }

  async #rename(): Promise<void> {
    const from = this.#pick('file');
    const to = this.#random.below(2) === 0 ? this.#pick('file') : this.#fresh();
    if (from === null || to === null || from === to) return;
    const places = [...(await this.#place(from)), ...(await this.#place(to))] as [number, string, number, string];
    this.#will((next) => {
      next.set(to, next.get(from)!);
      next.delete(from);
    });
    await this.#volume.vfs.rename(...places, 0);
  }

  async #remove(): Promise<void> {
    const path = this.#pick('file');
    if (path === null) return;
    const place = await this.#place(path);
    const ino = await this.#ino(path);
    // now and then it is open while its name goes
    const open = this.#random.below(3) === 0 ? await this.#volume.vfs.open(ino, 0) : null;
    this.#will((next) => next.delete(path));
    await this.#volume.vfs.unlink(...place);
    if (open !== null) await this.#volume.vfs.release(ino, open.handle);
  }

  async #folder(): Promise<void> {
    const path = this.#fresh();
    const [parent, name] = await this.#place(path);
    this.#will((next) => next.set(path, null));
    await this.#volume.vfs.mknod(parent, name, S_IFDIR | 0o755, 0, CALLER);
  }

  async #cut(): Promise<void> {
    const path = this.#pick('file');
    if (path === null) return;
    const before = this.#state.get(path)!;
    const sizeBytes = this.#random.below(before.length + 1_000);
    const after = Buffer.alloc(sizeBytes);
    before.copy(after);
    const ino = await this.#ino(path);
    this.#will((next) => next.set(path, after));
    await this.#volume.vfs.setattr(ino, { sizeBytes });
  }

  async #sync(): Promise<void> {
    const state = this.#progress.latest;
    await this.#volume.store.commit(true);
    this.#acknowledged(state, true);
  }

  /** Seals, uploads, and lets go of some local copies. */
  async #settle(): Promise<void> {
    const { segments, files, tree } = this.#volume;
    await segments.seal();
    const state = this.#progress.latest;
    // what is told to hosts and log is on the disk before
    await this.#volume.store.commit(true);
    this.#acknowledged(state, true);
    // while nothing could be uploaded
    if (this.#random.below(2) === 0) {
      await freeDeadSegments(this.#volume, () => false, { leastDeadBytes: 1 });
      return;
    }
    await this.#volume.upload();
    for (const shard of files.shards()) {
      if (!tree.isStaged(shard) && tree.shard(shard)?.id.length === 32 && this.#random.below(2) === 0) {
        await files.drop(shard);
      }
    }
  }
}

/** What lies in a volume: content, 'EIO' where it cannot be read, null for a folder. */
export async function contents(volume: OpenVolume): Promise<Map<string, Buffer | null | 'EIO'>> {
  const found = new Map<string, Buffer | null | 'EIO'>();
  const walk = async (parent: number, prefix: string): Promise<void> => {
    for await (const { dentry } of volume.tree.dentries(parent, 0n)) {
      const path = `${prefix}${dentry.name}`;
      if (dentry.type === S_IFDIR) {
        found.set(path, null);
        await walk(dentry.ino, `${path}/`);
      } else {
        const content = await readAll(volume.vfs, dentry.ino).catch((error: { code?: string }) => {
          if (error.code !== undefined && EIO.has(error.code)) return 'EIO' as const;
          throw error;
        });
        found.set(path, content);
      }
    }
  };
  await walk(1, '');
  return found;
}

const EIO = new Set(['EIO', 'CORRUPT_SHARD', 'NO_MIRROR']);

/** Number of the state from `from` to `to` that was found, where what cannot be read matches if `lossy`; or null. */
export function matching(
  found: ReadonlyMap<string, Buffer | null | 'EIO'>,
  states: readonly State[],
  from: number,
  to: number,
  lossy: boolean,
): number | null {
  for (let n = from; n <= to; n++) {
    const state = states[n]!;
    if (state.size !== found.size) continue;
    const isSame = [...state].every(([path, content]) => {
      const there = found.get(path);
      if (there === undefined) return false;
      if (there === 'EIO') return lossy && content !== null;
      return content === null || there === null ? content === there : content.equals(there);
    });
    if (isSame) return n;
  }
  return null;
}
