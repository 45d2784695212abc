// A device of a simulated world that has a volume mounted: the real parts of a mount, but for FUSE and the control socket,
// on the simulated network and disk. Its users are users.ts; what they may rely on is checked here.

import { leafHashes, shardIdOf, verifyShard } from '../../src/crypto/merkle.ts';
import type { VolumeKeys } from '../../src/crypto/keys.ts';
import { joinNetwork } from '../../src/client/join-network.ts';
import { MountedVolume } from '../../src/client/mounted-volume.ts';
import type { MountedVolumeOptions } from '../../src/client/mounted-volume.ts';
import { Problems } from '../../src/client/problems.ts';
import { stagedBytesOf } from '../../src/client/status.ts';
import { asError, hasCode } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { openFileSystem } from './file-system.ts';
import { differenceOf, isBefore, shownBy } from './history.ts';
import type { Change, History, Moment, Shown } from './history.ts';
import { databasesOn } from './index-database.ts';
import { Machine } from './machines.ts';
import type { BridgeMachine, Ground } from './machines.ts';
import type { SimNode } from './network.ts';
import type { SimProcess } from './process.ts';
import { Users } from './users.ts';
import { WatchedNetwork } from './watched-network.ts';
import type { Seen } from './watched-network.ts';

const REFRESH_MS = 15_000;
const DIR = '/volume';

/** An owner: the words of one volume, and what it knows of all its devices. */
export interface Owner extends Seen {
  readonly keys: VolumeKeys;
  readonly history: History;
  /** Whether files may be longer than one window of extents, and than one shard. */
  readonly hasLargeFiles: boolean;
}

/** How a device keeps its volume. */
export type Keeping = Pick<
  MountedVolumeOptions,
  'cacheBytes' | 'checkpointLogBytes' | 'leastDeadBytes' | 'maxRunBytes' | 'entryTargetBytes'
>;

/** One device of one owner. */
export class DeviceMachine extends Machine {
  readonly owner: Owner;
  /** Whether its users go on. */
  busy = true;
  mounted: MountedVolume | undefined;
  #problems: Problems | undefined;
  readonly #bridge: BridgeMachine;
  readonly #keeping: Keeping;
  /** What its filesystem shows. */
  #moment: Moment;
  /** What it must still show after its process was killed, and after its power failed; null where the log is all. */
  #kept: Moment | null = null;
  #synced: Moment | null = null;
  /** A change that is under way. */
  #pending: Change | null = null;
  /** It is being unmounted. */
  #isEnding = false;
  /** Why it could not be mounted. */
  #failure: unknown;
  #lostPower = false;

  constructor(ground: Ground, number: number, bridge: BridgeMachine, owner: Owner, keeping: Keeping) {
    super(ground, `device${number}`, `10.3.${number}.1`);
    this.#bridge = bridge;
    this.owner = owner;
    this.#keeping = keeping;
    this.#moment = owner.history.first;
  }

  get moment(): Moment {
    return this.#moment;
  }

  get process1(): SimProcess {
    return this.process!;
  }

  override crash(losesPower: boolean): void {
    if (!this.up) return;
    this.#lostPower ||= losesPower;
    this.mounted = undefined;
    super.crash(losesPower);
  }

  protected override failed(error: unknown): void {
    this.mounted = undefined;
    this.#failure = error;
    this.ground.scheduler.trace(`${this.name} fails: ${asError(error).message}`);
    // an older copy of the bridge's store has another log, until somebody hands in what it lacks
    if (this.#bridge.restored && hasCode(error, 'FORKED_LOG')) return;
    // a new home needs its bridge, and a disk that fails is nobody's fault
    if (hasCode(error, 'UNREACHABLE', 'TIMEOUT', 'ENOSPC', 'EIO', 'CLOSED', 'ABORTED', 'INTERNAL', 'EAGAIN')) return;
    const { code } = error as { code?: string };
    if ((code === 'EIO' || code === 'ENOSPC') && asError(error).message.includes('simulated')) return;
    this.owner.history.complain(`${this.name} cannot be mounted: ${asError(error).stack}`);
  }

  protected async run(process: SimProcess, node: SimNode): Promise<void> {
    this.#isEnding = false;
    this.#failure = undefined;
    const { clock, luck } = process;
    const { keys } = this.owner;
    const disk = openFileSystem(this.disk, process);
    const network = new WatchedNetwork(
      this.owner,
      this.disk,
      { bridge: this.#bridge.address, deviceSeed: this.seed, ownerSeed: keys.ownerSeed, parallelTransfers: 4 },
      { clock, random: luck.next, randomBytes: luck.bytes, disk, createNode: () => Promise.resolve(node) },
    );
    const problems = new Problems(clock);
    this.#problems = problems;
    const mounted = await MountedVolume.open(
      {
        ...{ network, keys, device: this.peer, clock, log: silentLogger, problems, disk },
        ...{ openDatabase: databasesOn(this.disk, process), randomBytes: luck.bytes },
        hasher: {
          hash: (memory, sizeBytes) =>
            process.step(1, () => {
              const leaves = leafHashes(memory.subarray(0, sizeBytes));
              return { leaves, id: shardIdOf(leaves, sizeBytes) };
            }),
          load: async ({ path, id, sizeBytes, memory }) => {
            const bytes = (await disk.readFile(path)).subarray(0, sizeBytes);
            Buffer.from(memory).set(bytes);
            return verifyShard(id, bytes) === null ? null : 0;
          },
          stop: () => Promise.resolve(),
        },
        onChanged: () => this.locate(),
      },
      { dir: DIR, readOnly: false, takeOver: false, owner: { uid: 1_000, gid: 1_000 }, ...this.#keeping },
    );
    this.mounted = mounted;
    this.#recovered(mounted);
    await joinNetwork({ network, mounted, problems, clock, log: silentLogger, isStopping: () => false });
    await mounted.start();
    void mounted.refresh();
    const refresh = clock.after(REFRESH_MS, () => {
      void mounted.refresh();
      refresh.restart();
    });
    const users = new Users(this, mounted, process);
    await users.run();
  }

  /** Ends the mount as `xcore umount` does, and then the process; resolves when that is done. */
  async unmount(): Promise<void> {
    const { mounted, process } = this;
    if (!mounted || !process?.alive) return;
    this.#isEnding = true;
    await mounted.stop();
    if (!process.alive) return;
    this.ground.scheduler.trace(`${this.name} is unmounted`);
    this.locate(mounted);
    [this.#kept, this.#synced] = [this.#moment, this.#moment];
    this.mounted = undefined;
    process.die();
  }

  /** Whether it refuses the log that the bridge shows, or will with the next entry. */
  get refuses(): boolean {
    if (hasCode(this.#failure, 'FORKED_LOG')) return true;
    if (this.#problems?.list().some(({ code }) => code === 'FORKED_LOG') === true) return true;
    const { seq, hash } = this.mounted?.volume.tree.head ?? { seq: 0, hash: Buffer.alloc(0) };
    return seq > 0 && this.owner.entries.get(BigInt(seq)) !== Buffer.from(hash).toString('hex');
  }

  /** Its owner sets aside all that is here, and takes the bridge's log for the right one. */
  acceptLog(): void {
    this.ground.scheduler.trace(`${this.name} accepts the log`);
    this.crash(false);
    this.disk.make(DIR);
    this.#moment = this.owner.history.first;
    [this.#kept, this.#synced, this.#pending] = [null, null, null];
    this.start();
  }

  // ------------------------------------------------------------------ what is shown

  #shown(mounted = this.mounted): Shown | null {
    try {
      return mounted ? shownBy(mounted.volume.tree) : null;
    } catch (error) {
      // stores that are being replaced
      if (hasCode(error, 'CLOSED')) return null;
      throw error;
    }
  }

  /** Finds out where in the history the filesystem is, which another device may have moved. */
  locate(mounted = this.mounted): void {
    const shown = this.#shown(mounted);
    if (!shown) return;
    const { history } = this.owner;
    const found = history.find(shown);
    if (found === this.#moment) return;
    if (!found) {
      if (this.#pending === null)
        history.complain(`${this.name} shows what never was: ${differenceOf(this.#moment.shown, shown)}`);
      return;
    }
    this.ground.scheduler.trace(`${this.name} goes from ${this.#moment.depth} to ${found.depth}`);
    this.#moveTo(found);
  }

  /** Another device's work is here now, perhaps in the place of this one's. */
  #moveTo(found: Moment): void {
    this.#moment = found;
    [this.#kept, this.#synced] = [null, null];
    this.owner.history.notePublished(found, `${this.name} follows`);
  }

  /** A process has opened what an earlier one left. */
  #recovered(mounted: MountedVolume): void {
    const shown = this.#shown(mounted)!;
    const { history } = this.owner;
    const pending = this.#pending;
    this.#pending = null;
    const found = history.find(shown) ?? (pending && history.add(this.#moment, shown, pending, this.name));
    if (!found) {
      history.complain(`${this.name} starts with what never was: ${differenceOf(this.#moment.shown, shown)}`);
      return;
    }
    const bound = this.#lostPower ? this.#synced : this.#kept;
    const isOfBranch = isBefore(found, this.#moment) || isBefore(this.#moment, found);
    const keeps = bound === null || isBefore(bound, found);
    // what another device published last may not have been noted, if it died right then
    const isPublished = isBefore(found, history.published) || isBefore(history.published, found);
    const isSetAside = mounted.setAside.length > 0 && isPublished;
    if (!keeps && !isSetAside && !isBefore(found, history.published))
      history.complain(
        `${this.name} starts with moment ${found.depth} and had ${bound.depth} (${this.#lostPower ? 'synced' : 'closed'}, ${bound.what}): ${differenceOf(bound.shown, found.shown)}`,
      );
    else if (!keeps && !isSetAside && bound && !isBefore(bound, history.published))
      history.complain(`${this.name} has lost moment ${bound.depth} for ${found.depth}`);
    else if (!isOfBranch && !isSetAside && !isBefore(found, history.published))
      history.complain(`${this.name} starts with moment ${found.depth} of another branch`);
    const { published } = history;
    if (published.device === this.name && isBefore(published, this.#moment) && !isBefore(published, found))
      history.complain(`${this.name} starts with moment ${found.depth} and had published ${published.depth}`);
    if (this.#lostPower && !isBefore(found, published)) this.#doubt(found, published);
    this.#synced = this.#lostPower ? found : this.#synced && isBefore(this.#synced, found) ? this.#synced : null;
    this.#kept = found;
    this.#lostPower = false;
    this.#moment = found;
    this.ground.scheduler.trace(`${this.name} has moment ${found.depth}`);
  }

  /** What was never synced may be unreadable now. */
  #doubt(found: Moment, published: Moment): void {
    for (const [ino, version] of found.contents) {
      if (this.#synced?.contents.get(ino) === version || published.contents.get(ino) === version) continue;
      version.doubtful = true;
    }
  }

  // ------------------------------------------------------------------ what users do

  /** Lets the filesystem make a change, and notes what came of it. */
  async change<T>(change: Change, call: () => T | Promise<T>): Promise<T> {
    const process = this.process1;
    // no two changes at the same time: they are told apart by theirs
    await process.clock.sleep(1);
    // the kernel hands on nothing more
    if (this.#isEnding) return await new Promise<T>(() => {});
    this.locate();
    this.#pending = change;
    try {
      const result = await call();
      if (!process.alive) return await new Promise<T>(() => {});
      this.#pending = null;
      this.#note(change);
      return result;
    } catch (error) {
      if (!process.alive) return await new Promise<T>(() => {});
      this.#pending = null;
      this.locate();
      throw error;
    }
  }

  #note(change: Change): void {
    const shown = this.#shown();
    if (!shown) return;
    const { history } = this.owner;
    const known = history.find(shown);
    // nothing has changed, or another device's work came right behind it
    if (known && known !== history.first) {
      if (known !== this.#moment) this.locate();
      return;
    }
    const next = history.add(this.#moment, shown, change, this.name);
    if (next) {
      this.#moment = next;
      return;
    }
    // the volume was replaced before the change was made
    const moved = history.add(history.published, shown, change, this.name);
    if (moved) {
      [this.#moment, this.#kept, this.#synced] = [moved, null, null];
    } else {
      history.complain(
        `${this.name}: ${change.what} changed something else: ${differenceOf(this.#moment.shown, shown)}`,
      );
    }
  }

  /** Something was acknowledged that was asked for at a moment. */
  acknowledged(moment: Moment, how: 'closed' | 'synced' | 'flushed'): void {
    this.ground.scheduler.trace(`${this.name} ${how} ${moment.depth}`);
    if (how === 'flushed') this.owner.history.notePublished(moment, `${this.name} flushed`);
    if (this.#isEnding) return;
    if (!isBefore(moment, this.#moment)) return;
    const later = (known: Moment | null): Moment => (known && isBefore(moment, known) ? known : moment);
    this.#kept = later(this.#kept);
    if (how !== 'closed') this.#synced = later(this.#synced);
  }

  /** What is to be done until nothing is left to be published; empty when nothing is. */
  unfinished(): string[] {
    const { mounted } = this;
    if (!this.up || !mounted) return [`${this.name} is not mounted`];
    const { volume, uploader, sync } = mounted;
    const staged = stagedBytesOf(volume, uploader);
    const missing: string[] = [];
    if (!sync.connected) missing.push(`${this.name} is not connected`);
    if (staged > 0) missing.push(`${this.name} has ${staged} staged bytes`);
    const { firstUnpublished, lastCommit, dirtyRecords } = volume.store;
    if (firstUnpublished <= lastCommit) missing.push(`${this.name} has unpublished commits`);
    if (sync.writer && dirtyRecords > 0) missing.push(`${this.name} has uncommitted changes`);
    if (missing.length > 0) {
      for (const { message } of this.#problems?.list() ?? []) missing.push(`${this.name} says: ${message}`);
    }
    return missing;
  }
}
