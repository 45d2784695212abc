// Checks and repairs of a device's volume, as the command makes them, and what is found in it afterwards.

import { fsck } from '../../src/client/fsck/fsck.ts';
import type { FsckComponents, FsckReport } from '../../src/client/fsck/fsck.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { hasCode } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import type { Random } from '../support/random.ts';
import { WatchedDisk } from '../support/watched-disk.ts';
import type { Point } from '../support/watched-disk.ts';
import { until, wrapped } from './device.ts';
import type { Device } from './device.ts';

/** Runs a check as the command does, over the network as the device sees it. */
export async function check(
  device: Device,
  repair: boolean,
  online = true,
  watched: Pick<FsckComponents, 'disk' | 'guard'> = {},
  acceptLog = false,
): Promise<FsckReport> {
  const { keys, world } = device.volume;
  const real = new ClientNetwork({ bridge: world.address, deviceSeed: device.seed, ownerSeed: keys.ownerSeed });
  const network = wrapped(real, (target) => device.wrap(target));
  let connected = false;
  network.on('connection', (up) => (connected = up));
  if (online) {
    await network.start();
    await until('the bridge answers', () => connected);
  }
  try {
    return await fsck(
      {
        network: online ? network : null,
        keys,
        clock: systemClock,
        log: silentLogger,
        progress: () => undefined,
        ...watched,
      },
      { dir: device.dir, repair, acceptLog },
    );
  } finally {
    await network.stop();
  }
}

/** Names of files that are not there, cannot be read, or, in `wrong`, hold other bytes. */
export async function compare(
  device: Device,
  files: ReadonlyMap<string, Buffer>,
): Promise<{ missing: string[]; failed: string[]; wrong: string[] }> {
  const result = { missing: [] as string[], failed: [] as string[], wrong: [] as string[] };
  // side by side, since each read of what nobody has takes its whole deadline
  const read = async (name: string, content: Buffer): Promise<void> => {
    try {
      const found = await device.read(name);
      if (found === undefined) result.missing.push(name);
      else if (!found.equals(content)) result.wrong.push(name);
    } catch (error) {
      if (!hasCode(error, 'CORRUPT_RECORD', 'CORRUPT_SHARD', 'EIO', 'NO_MIRROR', 'BAD_FORMAT', 'ENOENT')) throw error;
      result.failed.push(name);
    }
  };
  await Promise.all([...files].map(([name, content]) => read(name, content)));
  return result;
}

/** What is found where all is as it should be. */
export const NOTHING = { missing: [], failed: [], wrong: [] };

/** Copies a folder as a kill at a call to the disk leaves it: at some calls, and at all that move folders. */
export class Kills {
  readonly watched: WatchedDisk;
  readonly left: { dir: string; what: string }[] = [];
  readonly #every: number;
  readonly #first: number;

  /** One call in `every`. */
  constructor(dir: string, every: number, random: Random) {
    this.#every = every;
    this.#first = random.below(this.#every);
    this.watched = new WatchedDisk(dir);
    this.watched.onPoint = (point) => this.#at(point);
  }

  #at({ number, call, path }: Point): void {
    if (call !== 'rename' && number % this.#every !== this.#first) return;
    const dir = `${this.watched.dir}-kill-${number}`;
    this.watched.copyTo(dir);
    this.left.push({ dir, what: `${number}: ${call} ${path.slice(this.watched.dir.length)}` });
  }
}
