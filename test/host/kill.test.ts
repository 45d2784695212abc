import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as promises from 'node:fs/promises';
import { readFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import t from 'tap';
import { verifyShard } from '../../src/crypto/merkle.ts';
import { ShardStore } from '../../src/host/shard-store.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { shardFiles } from '../support/hosts.ts';
import { pickSeed, Random } from '../support/random.ts';

const ROUNDS = 8;

t.test('kill -9 in the middle of stores leaves whole shards and a right inventory', async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const random = new Random(seed);
  const dir = t.testdir();
  const kept = new Set<string>();
  for (let round = 0; round < ROUNDS; round += 1) {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'store-child.ts'), dir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    let output = '';
    const stores = random.between(1, 25);
    await new Promise<void>((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`the child ended with ${code}`)));
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        if (output.split('\n').length > stores) resolve();
      });
    });
    const closed = once(child, 'close');
    child.removeAllListeners('exit');
    child.kill('SIGKILL');
    await closed;
    for (const id of output.split('\n').slice(0, -1)) kept.add(id);

    const store = await ShardStore.open(
      dir,
      { fs: promises, log: silentLogger },
      { limitBytes: 1e12, floorBytes: 0, maxKnownLeaves: 10 },
    );
    t.same(await readdir(join(dir, 'incoming')), [], 'nothing half-written');
    let bytes = 0;
    const found = new Set<string>();
    for (const path of shardFiles(dir)) {
      const data = await readFile(path);
      if (!verifyShard(Buffer.from(basename(path), 'hex'), data)) t.fail(`${path} is not its shard`);
      bytes += data.length;
      found.add(basename(path));
    }
    t.equal(store.budget.usedBytes, bytes, 'used space is exact');
    t.same(
      [...kept].filter((id) => !found.has(id)),
      [],
      'what was acknowledged is there',
    );
  }
});
