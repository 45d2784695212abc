// A client that ends at any write, sync, rename and batch that it issues to its own disk, by a kill or
// by a power cut, and what the next start finds.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { Hasher } from '../../src/cache/hasher.ts';
import { contents, matching, Progress, work } from '../support/crash-work.ts';
import { pickSeed, Random } from '../support/random.ts';
import { findingsIn } from '../support/findings.ts';
import { CALLER, openVolume } from '../support/volume.ts';
import type { OpenVolume } from '../support/volume.ts';
import { WatchedDisk } from '../support/watched-disk.ts';

const isLong = process.env['XCORE_TEST_LONG'] === '1';
const POINTS = isLong ? 3_000 : 510;
const CHILD_STEPS = 170;
const KILLED_CHILDREN = isLong ? 100 : 4;
/** Copies that wait to be looked at. */
const MAX_WAITING = 6;
const SEGMENT_BYTES = 48 * 1024;
const CHILD = fileURLToPath(new URL('../support/crash-child.ts', import.meta.url));

t.setTimeout(isLong ? 3_600_000 : 600_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);

/** Memory where there is some: the copies are many. */
const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'xc-crash-'));
t.teardown(() => rmSync(root, { recursive: true, force: true }));
const hasher = new Hasher();
t.teardown(() => hasher.stop());

/** What one end left, and what may be found in it. */
interface Left {
  readonly dir: string;
  readonly what: string;
  /** States that may be found. */
  readonly from: number;
  readonly to: number;
  readonly isCut: boolean;
  /** Ciphertext by salt, as far as it was written. */
  readonly streams: ReadonlyMap<string, Buffer>;
}

/** Looks at what was left; returns what is wrong. */
async function look(left: Left, progress: Progress): Promise<string[]> {
  const wrong: string[] = [];
  let volume = await openVolume(left.dir, { hasher });
  const found = await contents(volume);
  const lossy = left.isCut && volume.lost.length > 0;
  if (matching(found, progress.states, left.from, left.to, lossy) === null) {
    wrong.push(`what is found is none of the states ${left.from} to ${left.to}: ${describe(found, progress, left)}`);
  }
  if (!left.isCut && volume.lost.length > 0) wrong.push(`bytes of shards ${volume.lost.join()} were lost`);
  wrong.push(...(await findingsIn(volume)));
  volume.segments.setSize(SEGMENT_BYTES);
  const more = Buffer.alloc(10_000, 'after the crash');
  const { attributes, file } = await volume.vfs.create(1, 'after', 0o100644, 2, CALLER);
  await volume.vfs.write(attributes.ino, file.handle, 0, more, false);
  await volume.vfs.fsync();
  await volume.close();
  volume = await openVolume(left.dir, { hasher });
  const after = (await contents(volume)).get('after');
  if (!(after instanceof Buffer) || !after.equals(more)) wrong.push('what is written afterwards is not there');
  wrong.push(...(await findingsIn(volume)), ...(await reused(volume, left.streams)));
  await volume.close();
  return wrong;
}

function describe(found: Awaited<ReturnType<typeof contents>>, progress: Progress, left: Left): string {
  const show = (state: ReadonlyMap<string, Buffer | null | 'EIO'>): string =>
    [...state]
      .map(([path, content]) => `${path}:${content instanceof Buffer ? content.length : String(content)}`)
      .sort()
      .join(' ');
  return `${show(found)} | ${show(progress.states[left.from]!)} | ${show(progress.states[left.to]!)}`;
}

/** Shards whose key encrypted something else before. */
async function reused({ tree, files }: OpenVolume, streams: ReadonlyMap<string, Buffer>): Promise<string[]> {
  const wrong: string[] = [];
  for (const shard of files.shards()) {
    const entry = tree.shard(shard);
    const before = entry === undefined ? undefined : streams.get(Buffer.from(entry.salt).toString('hex'));
    if (entry === undefined || before === undefined) continue;
    const now = (await files.disk.readFile(files.path(shard))).subarray(0, entry.sizeBytes);
    const common = Math.min(now.length, before.length);
    // a loss leaves what it leaves; what counts is that nothing else was encrypted there
    const differs = now.subarray(0, common).some((byte, at) => byte !== 0 && byte !== before[at]);
    if (differs) wrong.push(`the key stream of shard ${shard} was used twice`);
  }
  return wrong;
}

/** Notes the ciphertext of each salt as it goes to the disk. */
function recordStreams(watched: WatchedDisk, volume: () => OpenVolume): Map<string, Buffer> {
  const streams = new Map<string, Buffer>();
  watched.onCacheWrite = (shard, position, bytes) => {
    const entry = volume().tree.shard(shard);
    // leaf hashes come behind the ciphertext
    if (entry === undefined || position >= entry.sizeBytes) return;
    const name = Buffer.from(entry.salt).toString('hex');
    const before = streams.get(name) ?? Buffer.alloc(0);
    const after = Buffer.alloc(Math.max(before.length, position + bytes.length));
    before.copy(after);
    Buffer.from(bytes).copy(after, position);
    streams.set(name, after);
  };
  return streams;
}

await t.test('whatever call a kill or a power cut comes before, the next start finds a state that was', async (t) => {
  const dir = join(root, 'work');
  mkdirSync(dir);
  const watched = new WatchedDisk(dir);
  const progress = new Progress();
  const cuts = new Random(`${seed}/cuts`);
  const waiting: Left[] = [];
  const calls = new Map<string, number>();
  const wrong: string[] = [];
  let looked = 0;
  const streams = recordStreams(watched, () => volume);
  watched.onPoint = ({ number, call, path }) => {
    calls.set(call, (calls.get(call) ?? 0) + 1);
    const name = `${number}: ${call} ${path.slice(dir.length)}`;
    for (const isCut of isLong || number % 3 === 0 ? [false, true] : [false]) {
      const target = join(root, `${number}${isCut ? '-cut' : ''}`);
      if (isCut) watched.cutTo(target, cuts);
      else watched.copyTo(target);
      const from = isCut ? progress.synced : progress.closed;
      const what = `${isCut ? 'power cut' : 'kill'} at ${name}`;
      waiting.push({ dir: target, what, from, to: progress.latest, isCut, streams: new Map(streams) });
    }
  };
  const lookAtAll = async (most: number): Promise<void> => {
    while (waiting.length > most) {
      const left = waiting.shift()!;
      looked++;
      const found = await look(left, progress).catch((error: Error) => [error.stack ?? error.message]);
      if (found.length > 0) wrong.push(`${left.what}: ${found.join('; ')}`);
      rmSync(left.dir, { recursive: true, force: true });
    }
  };
  const volume = await openVolume(dir, { disk: watched.disk, guard: watched.guard, hasher });
  volume.segments.setSize(SEGMENT_BYTES);
  await work(
    volume,
    new Random(seed),
    () => watched.points < POINTS,
    progress,
    () => lookAtAll(MAX_WAITING),
  );
  await volume.close();
  await lookAtAll(0);
  t.comment([...calls].map(([call, count]) => `${call} ${count}`).join(', '));
  t.comment(`${watched.points} points, ${looked} ends, ${progress.latest} states`);
  t.ok(watched.points >= POINTS, 'points enough');
  t.strictSame(wrong.slice(0, 5), [], `${wrong.length} ends with something wrong`);
});

await t.test('a process that kills itself at a call leaves what was acknowledged', async (t) => {
  const random = new Random(`${seed}/children`);
  for (let n = 0; n < KILLED_CHILDREN; n++) {
    const dir = join(root, `child-${n}`);
    mkdirSync(dir);
    const at = random.between(20, 400);
    const child = spawn(process.execPath, [CHILD, dir, `${seed}/${n}`, String(at), String(CHILD_STEPS)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
      child.once('close', (...ended) => resolve(ended)),
    );
    t.strictSame([code, signal], [null, 'SIGKILL'], `killed at point ${at}`);
    const [closed = 0, latest = 0] = output.trim().split('\n').at(-1)!.split(' ').map(Number);
    // the states follow from the seed
    const progress = new Progress();
    const again = await openVolume(join(root, `again-${n}`), { hasher });
    again.segments.setSize(SEGMENT_BYTES);
    await work(again, new Random(`${seed}/${n}`), (step) => step < CHILD_STEPS, progress);
    await again.close();
    const left = {
      dir,
      what: `point ${at}`,
      from: closed,
      to: latest,
      isCut: false,
      streams: new Map<string, Buffer>(),
    };
    t.strictSame(await look(left, progress), [], `states ${closed} to ${latest}`);
  }
});
