// The life of a simulated world in which devices have one volume mounted, from its seed to its verdict.

import type { VolumeKeys } from '../../src/crypto/keys.ts';
import type { DeviceMachine } from './device.ts';
import { Faults } from './faults.ts';
import { differenceOf } from './history.ts';
import { Luck } from './luck.ts';
import type { Outcome } from './simulate.ts';
import { Users } from './users.ts';
import { World } from './world.ts';

/** Faults begin until then. */
const FAULTS_MS = 60_000;
/** All must be well so long after the last one. */
const PATIENCE_MS = 30 * 60_000;
const CHECK_EVERY_MS = 2_000;
/** Until then a device that has work which waits for another one's lease may get it by itself. */
const TAKE_OVER_MS = 60_000;
const READ_MS = 900_000;
/** A bridge that has forgotten mirrors finds them in that time. */
const FIND_MS = 600_000;
/** Of all worlds, in which files are longer than a shard. */
const SHARE_LARGE = 0.25;
const START_MS = 120_000;
/** Shards that a device stored and that another one's lease made useless are freed early, in half of the worlds. */
const UNNAMED_MS = 30_000;

/** Lives one world: seed 17, or r17 for a world whose bridge is restored from an older copy. */
export async function simulateMounts(
  seed: string,
  keys: VolumeKeys,
  onTrace?: (line: string) => void,
): Promise<Outcome> {
  const restores = seed.startsWith('r');
  const number = seed.slice(restores ? 1 : 0);
  const luck = new Luck(`mounts ${number}`).fork('shape');
  const liars = luck.below(2);
  const world = new World(`mounts ${number}`, {
    hosts: 3 + liars + luck.below(2),
    deceits: liars > 0 ? ['lies'] : [],
    clients: 0,
    habits: { maxShards: 0, pauseMs: [1, 2] },
    restores,
    devices: luck.chance(0.2) ? 1 : 2,
    keys,
    hasLargeFiles: luck.fork('files').chance(SHARE_LARGE),
    keeping: {
      cacheBytes: luck.chance(0.5) ? 8_000_000 : 100_000_000,
      checkpointLogBytes: luck.chance(0.6) ? 5_000 + luck.below(100_000) : 8_000_000,
      leastDeadBytes: luck.chance(0.5) ? 20_000 : 32_000_000,
      maxRunBytes: luck.chance(0.5) ? 5_000 : 8_000_000,
      entryTargetBytes: luck.chance(0.3) ? 4_000 : 1_000_000,
    },
    // a host keeps for long what a restored bridge does not know
    bridge: { leaseTtlMs: 6_000, ...(luck.chance(0.5) && { unnamedAfterMs: UNNAMED_MS }) },
  });
  const { scheduler, owner } = world;
  const history = owner!.history;
  scheduler.onTrace = onTrace;
  const faults = new Faults(world, { restores, everyMs: luck.between(1_500, 6_000), untilMs: FAULTS_MS });
  world.start();
  faults.start();
  for (let atMs = 0; atMs < FAULTS_MS && world.verdict().length === 0; atMs += CHECK_EVERY_MS) {
    await scheduler.run(atMs);
    world.check();
  }
  faults.end();
  for (const device of world.devices) device.busy = false;
  const healFrom = scheduler.nowMs;
  // what users did last is on its way into the index
  await scheduler.run(healFrom + CHECK_EVERY_MS);
  const unfinished = (): string[] => [...world.unfinished(), ...unsettled(world)];
  while (scheduler.nowMs < healFrom + PATIENCE_MS && world.verdict().length === 0 && unfinished().length > 0) {
    await scheduler.run(scheduler.nowMs + CHECK_EVERY_MS);
    world.check();
    if (scheduler.nowMs > healFrom + TAKE_OVER_MS) takeOver(world);
    if (history.forked) for (const device of world.devices) if (device.refuses) device.acceptLog();
  }
  const healedMs = scheduler.nowMs - healFrom;
  const complaints = [...world.verdict(), ...unfinished()];
  if (complaints.length === 0) complaints.push(...(await readAll(world)), ...world.verdict());
  const outcome = {
    seed,
    complaints,
    digest: scheduler.digest(),
    events: scheduler.events,
    virtualMs: scheduler.nowMs,
    healedMs,
    shards: owner!.shards.size,
    moments: history.moments,
  };
  scheduler.over = true;
  for (const machine of world.machines) machine.bury();
  return outcome;
}

/** A device that lost its lease with work that nobody's has replaced goes on when it is told to. */
function takeOver({ devices }: World): void {
  const staged = devices.find(({ mounted }) => {
    const store = mounted?.volume.store;
    return store && !mounted.sync.writer && store.firstUnpublished <= store.lastCommit;
  });
  staged?.mounted?.sync.takeOver();
}

/** What is to be done until all devices show what is in the log. */
function unsettled({ devices }: World): string[] {
  const missing = devices.flatMap((device) => device.unfinished());
  if (missing.length > 0) return missing;
  const heads = devices.map(({ mounted }) => mounted!.volume.tree.head.seq);
  if (new Set(heads).size > 1) missing.push(`the heads are ${heads.join(', ')}`);
  if (!devices.some(({ mounted }) => mounted!.sync.writer)) missing.push('nobody writes');
  return missing;
}

/** All devices show the same, the newest moment, and a device that has nothing yet reads all of it from the network. */
async function readAll(world: World): Promise<string[]> {
  const { scheduler, owner, devices } = world;
  const wrong: string[] = [];
  const fresh = world.addDevice();
  fresh.busy = false;
  fresh.start();
  const isThere = (): boolean => fresh.mounted !== undefined && unsettled(world).length === 0;
  if (!(await scheduler.run(scheduler.nowMs + START_MS, isThere)))
    return ['a new device does not start', ...unsettled(world)];
  for (const device of devices) device.locate();
  const newest = owner!.history.published;
  for (const device of devices) {
    if (device.moment !== newest)
      wrong.push(
        `${device.name} shows moment ${device.moment.depth}: ${differenceOf(newest.shown, device.moment.shown)}`,
      );
  }
  if (wrong.length > 0) return wrong;
  let left = devices.length;
  for (const device of devices) {
    readTree(device, world.bridge.restored ? scheduler.nowMs + FIND_MS : 0, () => scheduler.nowMs)
      .then((complaints) => wrong.push(...complaints))
      .catch((error: unknown) => wrong.push(`${device.name} cannot be read: ${String(error)}`))
      .finally(() => (left -= 1));
  }
  if (!(await scheduler.run(scheduler.nowMs + READ_MS, () => left === 0))) wrong.push(`${left} devices are not read`);
  return wrong;
}

/** Reads all files; one that cannot be read is tried again until `untilMs`. */
async function readTree(device: DeviceMachine, untilMs: number, nowMs: () => number): Promise<string[]> {
  const wrong: string[] = [];
  const { moment, mounted } = device;
  const users = new Users(device, mounted!, device.process1);
  for (const [path, { ino, isFolder }] of moment.shown) {
    if (isFolder) continue;
    const version = moment.contents.get(ino);
    if (!version) {
      wrong.push(`${path} was never written`);
      continue;
    }
    for (let isOver = false; !isOver;) {
      isOver = nowMs() >= untilMs;
      try {
        const content = await users.content(ino);
        if (content.parts().join() !== version.content.parts().join())
          wrong.push(`${device.name} reads other bytes in ${path}`);
        break;
      } catch (error) {
        if (isOver && !version.doubtful && !device.owner.history.forked)
          wrong.push(`${device.name} cannot read ${path}: ${String(error)}`);
        if (version.doubtful || device.owner.history.forked) break;
        await device.process1.clock.sleep(CHECK_EVERY_MS);
      }
    }
  }
  return wrong;
}
