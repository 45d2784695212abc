// kill -9 of the daemon in the middle of a copy, again and again.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { fingerprint } from '../support/fingerprint.ts';
import type { Fingerprint } from '../support/fingerprint.ts';
import { filesBelow } from '../support/hosts.ts';
import { withNetwork } from '../support/network.ts';
import { Random, pickSeed, writeRandomFile } from '../support/random.ts';
import { ROOT } from '../support/run.ts';
import { SIZES } from '../support/sizes.ts';

t.setTimeout(900_000);

const seed = pickSeed();
t.comment(`seed ${seed}`);
const random = new Random(seed);
const net = await withNetwork(t, { hosts: 3 });
const { run } = net;

const source = join(run.dir, 'source');
mkdirSync(source);
await run.must('cp', ['-a', join(ROOT, 'node_modules/eslint/lib/rules'), join(source, 'rules')]);
for (let n = 0; n < 4; n++)
  writeRandomFile(join(source, `rules/big-${n}`), `${seed}/${n}`, random.between(4, 12) << 20);
const wanted = new Map(
  filesBelow(source).map((path) => {
    const data = readFileSync(path);
    return [path.slice(source.length + 1), { data, hash: createHash('sha256').update(data).digest('hex') }] as const;
  }),
);

/** Copies into `target` until the mount dies; what the copier was told, in order. */
async function copyUntilKilled(target: string, kill: () => Promise<void>): Promise<string[]> {
  const copier = spawn(process.execPath, [join(ROOT, 'test/support/copier.ts'), source, target], {
    env: run.env(),
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let output = '';
  copier.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const ended = new Promise((resolve) => copier.once('close', resolve));
  await Promise.race([new Promise((resolve) => copier.stdout.once('data', resolve)), ended]);
  await kill();
  await ended;
  return output.split('\n').slice(0, -1);
}

/** What a round's folder must hold: files whose close() or a later one returned, and those in doubt. */
interface Promise_ {
  readonly kept: Map<string, string>;
  /** Last name of the file whose rename nothing followed, or which was about to be renamed: it has either of its names. */
  readonly renaming: string | undefined;
}

function promised(lines: readonly string[]): Promise_ {
  const kept = new Map<string, string>();
  let renaming: string | undefined;
  for (const line of lines) {
    const [what, path] = [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)];
    const file = path.replace(/^\d+\//, '').replace(/~$/, '');
    const hash = wanted.get(file)?.hash ?? 'unknown';
    if (what === 'closed') {
      // The daemon acknowledged a later close, so the rename before it is kept as well.
      renaming = path.endsWith('~') ? path.slice(0, -1) : undefined;
      kept.set(path, hash);
    } else if (what === 'renamed') {
      kept.delete(`${path}~`);
      kept.set(path, hash);
      renaming = path;
    }
  }
  return { kept, renaming };
}

/** Checks one round's folder, path by path; returns what is wrong. */
async function check(dir: string, promise: Promise_): Promise<string[]> {
  // Even the folder is nothing that was promised, as long as no close() followed.
  return promise.kept.size === 0 && !existsSync(dir) ? [] : compare(dir, await fingerprint(run, dir), promise);
}

function compare(dir: string, found: Fingerprint, { kept, renaming }: Promise_): string[] {
  const wrong: string[] = [];
  for (const [path, hash] of kept) {
    const last = path.replace(/~$/, '');
    const line = found.get(path) ?? (last === renaming ? (found.get(last) ?? found.get(`${last}~`)) : undefined);
    if (!line?.endsWith(` ${hash}`)) wrong.push(`${path}: wanted ${hash}, found ${line ?? 'nothing'}`);
  }
  for (const [path, line] of found) {
    if (!line.startsWith('file') || kept.has(path) || path.replace(/~$/, '') === renaming) continue;
    // Not acknowledged: whatever is there must be what was written so far, or nothing yet.
    const whole = wanted.get(path.replace(/^\d+\//, '').replace(/~$/, ''))?.data ?? Buffer.alloc(0);
    const part = readFileSync(join(dir, path));
    if (part.length > whole.length) wrong.push(`${path}: ${part.length} bytes of ${whole.length}`);
    else if (part.some((byte, at) => byte !== 0 && byte !== whole[at])) wrong.push(`${path}: bytes nobody wrote`);
  }
  return wrong;
}

await t.test(`nothing acknowledged is lost when the daemon dies ${SIZES.kills} times`, async (t) => {
  const client = await net.newClient('a');
  const words = await client.phrase();
  const rounds: { name: string; promise: Promise_ }[] = [];
  for (let n = 0; n < SIZES.kills; n++) {
    const mount = await client.mount();
    const pid = await client.daemonPid();
    if (n > 0) {
      const last = rounds[n - 1]!;
      t.strictSame(await check(join(mount, last.name), last.promise), [], `round ${n}: as acknowledged`);
    }
    const name = `round-${n}`;
    mkdirSync(join(mount, name));
    const delayMs = random.between(20, 1500);
    const lines = await copyUntilKilled(join(mount, name), async () => {
      await sleep(delayMs);
      await client.kill(pid);
    });
    const promise = promised(lines);
    t.comment(`round ${n}: killed after ${delayMs} ms, ${promise.kept.size} files acknowledged`);
    rounds.push({ name, promise });
  }

  const mount = await client.mount();
  const last = rounds[SIZES.kills - 1]!;
  t.strictSame(await check(join(mount, last.name), last.promise), [], 'the last round: as acknowledged');
  await client.flush();
  t.equal((await client.status()).stagedBytes, 0, 'uploads went on');
  await client.umount();
  const checked = await client.xcore(['fsck']);
  t.equal(checked.code, 0, `xcore fsck: ${checked.stdout}${checked.stderr}`);
  rmSync(client.home, { recursive: true });

  const second = await net.recovered('b', words);
  const again = await second.mount();
  const all = await fingerprint(run, again);
  for (const { name, promise } of rounds) {
    const below = [...all].filter(([path]) => path.startsWith(`${name}/`));
    const found = new Map(below.map(([path, line]) => [path.slice(name.length + 1), line]));
    t.strictSame(compare(join(again, name), found, promise), [], `${name} recovered`);
  }
  await second.umount();
});
