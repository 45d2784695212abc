// Who uses the filesystem of a simulated device: makes, writes, cuts, copies, renames and removes files, punches holes,
// sets attributes, syncs, reads, and now and then asks for a flush, or for the lease.

import type { MountedVolume } from '../../src/client/mounted-volume.ts';
import { asError, hasCode, XcoreError } from '../../src/lib/errors.ts';
import { WINDOW_SIZE_BYTES } from '../../src/tree/extents.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../src/vfs/modes.ts';
import { Content, PART_BYTES } from './content.ts';
import type { DeviceMachine } from './device.ts';
import { allocated, copied, empty, resized, written } from './effects.ts';
import { FILES, FOLDERS } from './history.ts';
import type { Change } from './history.ts';
import type { SimProcess } from './process.ts';

const O_RDWR = 2;
const O_TRUNC = 0o1000;
/** Windows of a file that users of large files write in. */
const WINDOWS = 3;
const NEAR_BYTES = 60_000;
/** Of what is written into large files, as much as several shards. */
const SHARE_BULK = 0.1;
/** At names, for one that means something. */
const LOOKS = 4;
const ATTRIBUTES = ['user.a', 'user.b'];
const ALLOCATIONS = [
  0,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_ZERO_RANGE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];
const MAX_FLUSH_MS = 30_000;
const NOBODY = { uid: 1_000, gid: 1_000, pid: 1 };

const PATHS = [...FILES, ...FOLDERS.flatMap((folder) => FILES.slice(0, 3).map((file) => `${folder}/${file}`))].map(
  (path) => `/${path}`,
);

interface Named {
  readonly path: string;
  readonly folder: string;
  readonly parent: number;
  readonly name: string;
  /** Inode number, 0 where nothing has the name. */
  readonly ino: number;
}

/** The users of one process. */
export class Users {
  readonly #device: DeviceMachine;
  readonly #mounted: MountedVolume;
  readonly #process: SimProcess;

  constructor(device: DeviceMachine, mounted: MountedVolume, process: SimProcess) {
    this.#device = device;
    this.#mounted = mounted;
    this.#process = process;
  }

  async run(): Promise<void> {
    await Promise.all([this.#write(), this.#read(), this.#flush()]);
  }

  async #write(): Promise<void> {
    const { clock, luck } = this.#process;
    while (this.#process.alive) {
      await clock.sleep(luck.chance(0.1) ? luck.between(2_000, 10_000) : luck.between(1, 400));
      if (!this.#device.busy || !this.#mounted.sync.writer) continue;
      try {
        await this.#one();
      } catch (error) {
        this.#failed(error, 'a change');
      }
    }
  }

  /** What a filesystem may say; whoever means to say something else is heard of. */
  #failed(error: unknown, what: string): void {
    if (!this.#process.alive) return;
    if (error instanceof XcoreError && !hasCode(error, 'CORRUPT_RECORD', 'CORRUPT_SHARD', 'FORKED_LOG', 'BAD_FORMAT'))
      return;
    const { code } = error as { code?: string };
    if (code === 'EIO' || code === 'ENOSPC') return;
    this.#device.owner.history.complain(`${this.#device.name}: ${what} fails: ${asError(error).stack}`);
  }

  async #one(): Promise<void> {
    const { luck } = this.#process;
    const kinds: [number, () => Promise<void>][] = [
      [6, () => this.#writeFile()],
      [2, () => this.#cut()],
      [1, () => this.#allocate()],
      [1.5, () => this.#copy()],
      [0.5, () => this.#setAttribute()],
      [1, () => this.#unlink()],
      [2, () => this.#rename()],
      [1, () => this.#link()],
      [1, () => this.#mkdir()],
      [0.5, () => this.#rmdir()],
      [2, () => this.#sync()],
      [0.05, async () => this.#mounted.sync.takeOver()],
    ];
    let draw = luck.next() * kinds.reduce((sum, [weight]) => sum + weight, 0);
    await kinds.find(([weight]) => (draw -= weight) < 0)![1]();
  }

  /** Looks a path up, as it is now. */
  async #find(path: string): Promise<Named> {
    const fs = this.#mounted.filesystem;
    const [folder, name] = [path.slice(0, path.lastIndexOf('/')), path.slice(path.lastIndexOf('/') + 1)];
    const parent = folder === '' ? 1 : (await fs.lookup(1, folder.slice(1)))?.ino;
    if (parent === undefined) throw new XcoreError('ENOENT');
    return { path, folder, parent, name, ino: (await fs.lookup(parent, name))?.ino ?? 0 };
  }

  #any(): Promise<Named> {
    return this.#find(this.#process.luck.pick(PATHS)!);
  }

  #sizeOf(ino: number): number {
    return this.#device.moment.contents.get(ino)?.content.sizeBytes ?? 0;
  }

  /** Somewhere in a file: of large files, also where windows meet. */
  #somewhere(): number {
    const { luck } = this.#process;
    if (!this.#device.owner.hasLargeFiles || luck.chance(0.6)) return luck.below(NEAR_BYTES);
    return (1 + luck.below(WINDOWS)) * WINDOW_SIZE_BYTES + luck.below(2 * NEAR_BYTES) - NEAR_BYTES;
  }

  #someBytes(isBulk: boolean): number {
    const { luck } = this.#process;
    if (isBulk) return Math.floor(luck.between(PART_BYTES / 2, PART_BYTES));
    return 1 + luck.below(luck.chance(0.1) ? 300_000 : 30_000);
  }

  /** Of a range that is cut, copied or made a hole. */
  #someLength(): number {
    const { luck } = this.#process;
    const isLarge = this.#device.owner.hasLargeFiles && luck.chance(0.3);
    return 1 + luck.below(isLarge ? WINDOWS * WINDOW_SIZE_BYTES : NEAR_BYTES);
  }

  async #writeFile(): Promise<void> {
    const { luck, clock } = this.#process;
    const fs = this.#mounted.filesystem;
    const named = await this.#any();
    let { ino } = named;
    let handle: number;
    if (ino === 0) {
      const made = await this.#change('create', named, undefined, empty(named.path), () =>
        fs.create(named.parent, named.name, 0o644, O_RDWR, NOBODY),
      );
      ino = made.attributes.ino;
      ({ handle } = made.file);
    } else if (luck.chance(0.5)) {
      const opened = await this.#change('open and cut', named, ino, resized(ino, 0), () =>
        fs.open(ino, O_RDWR | O_TRUNC),
      );
      ({ handle } = opened);
    } else {
      ({ handle } = await fs.open(ino, O_RDWR));
    }
    try {
      const isBulk = this.#device.owner.hasLargeFiles && luck.chance(SHARE_BULK);
      for (let times = (isBulk ? 3 : 1) + luck.below(3); times > 0; times -= 1) {
        const bytes = luck.content(this.#someBytes(isBulk));
        const offset =
          isBulk || luck.chance(0.6) ? Math.min(this.#sizeOf(ino), WINDOWS * WINDOW_SIZE_BYTES) : this.#somewhere();
        await this.#change('write', named, ino, written(ino, offset, bytes), () =>
          fs.write(ino, handle, offset, Buffer.from(bytes), false),
        );
        if (!isBulk && luck.chance(0.3)) await clock.sleep(luck.between(1, 200));
        if (luck.chance(0.2)) await this.#acknowledge('synced', () => fs.fsync(ino, handle, false));
      }
      await this.#acknowledge('closed', () => fs.flush(ino, handle));
    } finally {
      await fs.release(ino, handle);
    }
  }

  /** A file, where a few looks find one. */
  async #file(): Promise<Named> {
    let named = await this.#any();
    for (let looks = 1; named.ino === 0 && looks < LOOKS; looks += 1) named = await this.#any();
    if (named.ino === 0) throw new XcoreError('ENOENT');
    return named;
  }

  async #cut(): Promise<void> {
    const named = await this.#file();
    const sizeBytes = this.#somewhere();
    await this.#change('truncate', named, named.ino, resized(named.ino, sizeBytes), () =>
      this.#mounted.filesystem.setattr(named.ino, { sizeBytes }, NOBODY),
    );
  }

  async #allocate(): Promise<void> {
    const named = await this.#file();
    const mode = this.#process.luck.pick(ALLOCATIONS)!;
    const [offset, lengthBytes] = [this.#somewhere(), this.#someLength()];
    await this.#change(`fallocate ${mode}`, named, named.ino, allocated(named.ino, mode, offset, lengthBytes), () =>
      this.#mounted.filesystem.fallocate(named.ino, mode, offset, lengthBytes, NOBODY),
    );
  }

  async #copy(): Promise<void> {
    const [from, to] = [await this.#file(), await this.#file()];
    if (from.ino === to.ino) return;
    const sizeBytes = this.#sizeOf(from.ino);
    const offset = this.#process.luck.chance(0.7) ? this.#process.luck.below(sizeBytes) : this.#somewhere();
    const [toOffset, lengthBytes] = [this.#somewhere(), this.#someLength()];
    const effect = copied(from.ino, offset, to.ino, toOffset, lengthBytes);
    await this.#change(`copy ${from.path}`, to, to.ino, effect, () =>
      this.#mounted.filesystem.copyRange(from.ino, offset, to.ino, toOffset, lengthBytes, NOBODY),
    );
  }

  async #setAttribute(): Promise<void> {
    const { luck } = this.#process;
    const named = await this.#file();
    const name = luck.pick(ATTRIBUTES)!;
    const value = Buffer.from(String(luck.below(1_000_000)).repeat(1 + luck.below(50)));
    await this.#change(name, named, named.ino, undefined, () =>
      luck.chance(0.7)
        ? this.#mounted.filesystem.setxattr(named.ino, name, value, 0)
        : this.#mounted.filesystem.removexattr(named.ino, name),
    );
  }

  async #unlink(): Promise<void> {
    const named = await this.#file();
    await this.#change('unlink', named, named.ino, undefined, () =>
      this.#mounted.filesystem.unlink(named.parent, named.name),
    );
  }

  async #rename(): Promise<void> {
    const [from, to] = [await this.#file(), await this.#any()];
    if (from.path === to.path) return;
    const paths = new Set([...pathsOf(from), ...pathsOf(to), ...this.#namesOf(to.ino)]);
    await this.#device.change({ what: `rename ${from.path} ${to.path}`, paths, ino: from.ino }, () =>
      this.#mounted.filesystem.rename(from.parent, from.name, to.parent, to.name, 0),
    );
  }

  async #link(): Promise<void> {
    const [from, to] = [await this.#any(), await this.#any()];
    if (from.ino === 0 || to.ino !== 0) return;
    await this.#change(`link ${from.path}`, to, from.ino, undefined, () =>
      this.#mounted.filesystem.link(from.ino, to.parent, to.name),
    );
  }

  async #mkdir(): Promise<void> {
    const named = await this.#find(`/${this.#process.luck.pick(FOLDERS)!}`);
    if (named.ino !== 0) return;
    await this.#change('mkdir', named, undefined, undefined, () =>
      this.#mounted.filesystem.mkdir(named.parent, named.name, 0o755, NOBODY),
    );
  }

  async #rmdir(): Promise<void> {
    const named = await this.#find(`/${this.#process.luck.pick(FOLDERS)!}`);
    if (named.ino === 0) return;
    await this.#change('rmdir', named, undefined, undefined, () =>
      this.#mounted.filesystem.rmdir(named.parent, named.name),
    );
  }

  async #sync(): Promise<void> {
    await this.#acknowledge('synced', () => this.#mounted.filesystem.fsyncdir(1, false));
  }

  async #flush(): Promise<void> {
    const { clock, luck } = this.#process;
    while (this.#process.alive) {
      await clock.sleep(luck.between(2_000, 30_000));
      if (!this.#device.busy || !this.#mounted.sync.writer) continue;
      const giveUp = new AbortController();
      const timer = clock.after(luck.between(100, MAX_FLUSH_MS), () => giveUp.abort());
      try {
        await this.#acknowledge('flushed', () => this.#mounted.flush(() => undefined, giveUp.signal));
      } catch (error) {
        this.#failed(error, 'a flush');
      }
      timer.cancel();
    }
  }

  async #read(): Promise<void> {
    const { clock, luck } = this.#process;
    while (this.#process.alive) {
      await clock.sleep(luck.between(50, 2_000));
      if (!this.#device.busy) continue;
      try {
        const { path, ino } = await this.#any();
        if (ino === 0) continue;
        const content = await this.content(ino);
        if (!this.#process.alive) return;
        if (!this.#device.owner.history.wasEver(content))
          this.#device.owner.history.complain(`${this.#device.name} reads in ${path} what was never written`);
      } catch (error) {
        this.#failed(error, 'a read');
      }
    }
  }

  /** All bytes of a file, a part at a time. */
  async content(ino: number): Promise<Content> {
    const fs = this.#mounted.filesystem;
    const { handle } = await fs.open(ino, 0);
    try {
      let content = Content.empty;
      for (let sizeBytes = PART_BYTES; sizeBytes === PART_BYTES;) {
        const parts = fs.read(ino, handle, content.sizeBytes, PART_BYTES);
        const part = Buffer.concat(parts instanceof Promise ? await parts : parts);
        sizeBytes = part.length;
        content = content.write(content.sizeBytes, part);
      }
      return content;
    } finally {
      await fs.release(ino, handle);
    }
  }

  #namesOf(ino: number): string[] {
    return [...this.#device.moment.shown].filter(([, place]) => place.ino === ino).map(([path]) => path);
  }

  #change<T>(
    what: string,
    named: Named,
    ino: number | undefined,
    effect: Change['effect'],
    call: () => T | Promise<T>,
  ): Promise<T> {
    const change: Change = {
      ...{ what: `${what} ${named.path}`, paths: new Set(pathsOf(named)) },
      ...(ino !== undefined && { ino }),
      ...(effect && { effect }),
    };
    return this.#device.change(change, call);
  }

  async #acknowledge(how: 'closed' | 'synced' | 'flushed', call: () => void | Promise<void>): Promise<void> {
    this.#device.locate();
    const { moment } = this.#device;
    await call();
    if (this.#process.alive) this.#device.acknowledged(moment, how);
  }
}

function pathsOf({ path, folder }: Named): string[] {
  return [path, folder];
}
