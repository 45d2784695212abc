// Nobody but the owner can read anything: not from the hosts, not from the bridge, not from the
// client's own disk.

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Level } from 'level';
import t from 'tap';
import { frozen } from '../support/frozen.ts';
import { filesBelow } from '../support/hosts.ts';
import { setxattr } from '../support/libc.ts';
import { withNetwork } from '../support/network.ts';
import { Random, pickSeed } from '../support/random.ts';

t.setTimeout(300_000);

const MAX_SHARD_BYTES = 2_097_152;
const seed = pickSeed();
t.comment(`seed ${seed}`);
const random = new Random(seed);
const marker = `MARK${random.bytes(12).toString('hex')}`;

/** The marker as it would look in the usual guises. */
function guises(text: string): Buffer[] {
  const found = [Buffer.from(text), Buffer.from(text, 'utf16le'), Buffer.from(Buffer.from(text).toString('hex'))];
  for (const shift of [0, 1, 2]) {
    // Base64 depends on the position in a group of three; the edges depend on the neighbours.
    const encoded = Buffer.from('\0'.repeat(shift) + text).toString('base64');
    found.push(Buffer.from(encoded.slice(4, -4)));
  }
  return found;
}

const needles = guises(marker);

function holdsMarker(data: Uint8Array): boolean {
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return needles.some((needle) => buffer.includes(needle));
}

/** Files below `dir` with the marker in their bytes or path, and records of databases that hold it. */
async function leaks(dir: string, scratch: string): Promise<string[]> {
  const files = filesBelow(dir);
  const found = files.filter((path) => path.includes(marker) || (existsSync(path) && holdsMarker(readFileSync(path))));
  // LevelDB compresses its tables, so its records are looked at too, in a copy.
  for (const path of files.filter((file) => basename(file) === 'CURRENT')) {
    cpSync(dirname(path), scratch, { recursive: true });
    const db = new Level<Buffer, Buffer>(scratch, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
    for await (const [key, value] of db.iterator()) {
      if (holdsMarker(key) || holdsMarker(value)) found.push(`${dirname(path)}: record ${key.toString('hex')}`);
    }
    await db.close();
    rmSync(scratch, { recursive: true });
  }
  return found;
}

await t.test('the marker is found nowhere, and no file on a host is larger than a shard', async (t) => {
  const net = await withNetwork(t, { hosts: 3 });
  const scratch = join(net.run.dir, 'scratch');
  const control = join(net.run.dir, 'control');
  mkdirSync(control);
  writeFileSync(join(control, 'x'), `some ${marker} text`);
  t.equal((await leaks(control, scratch)).length, 1, 'the search finds what is there');
  const db = new Level(join(control, 'db'));
  await db.put('key', `some ${marker} text`);
  await db.close();
  t.ok(
    (await leaks(control, scratch)).some((place) => place.includes('record')),
    'in a database too',
  );

  const client = await net.newClient('a');
  const words = await client.phrase();
  const mount = await client.mount();
  const dir = join(mount, `dir-${marker}`);
  mkdirSync(dir);
  writeFileSync(join(dir, `file-${marker}`), `content ${marker}\n`);
  writeFileSync(join(dir, 'large'), `${marker}\n`.repeat(200_000));
  writeFileSync(join(dir, 'zeros'), Buffer.alloc(5_000_000));
  symlinkSync(`target/${marker}`, join(dir, 'link'));
  setxattr(join(dir, 'large'), `user.${marker}`, Buffer.from(`value ${marker}`));
  for (let n = 0; n < 300; n++) writeFileSync(join(dir, `${n}-${marker}`), `${marker} ${n}`);

  const writer = [await client.daemonPid()];
  const inHome = (): Promise<string[]> => frozen(writer, () => leaks(client.home, scratch));
  t.strictSame(await inHome(), [], 'not in the home while files are staged');
  await client.flush();
  t.ok(readFileSync(join(dir, 'large'), 'utf8').startsWith(marker), 'the mount gives it back');
  t.strictSame(await inHome(), [], 'not in the home after a flush');
  await client.umount();

  const reader = await net.recovered('b', words);
  const again = await reader.mount('--read-only');
  t.ok(readFileSync(join(again, `dir-${marker}`, 'large'), 'utf8').startsWith(marker), 'a second machine reads it');
  await reader.umount();

  t.strictSame(await leaks(client.home, scratch), [], 'not in the home of the writer');
  t.strictSame(await leaks(reader.home, scratch), [], 'not in the home of the reader');
  const onBridge = await frozen([net.bridge.pid], () => leaks(net.bridge.dir, scratch));
  t.strictSame(onBridge, [], 'not on the bridge');
  for (const host of net.hosts) {
    const onHost = await frozen([host.pid], () => leaks(host.dir, scratch));
    t.strictSame(onHost, [], `not on ${host.name}`);
    await host.stop();
  }
  await net.bridge.stop();
  const wordList = words.split(' ');
  const someWords = wordList.slice(0, 6).join(' ');
  for (const host of net.hosts) {
    const files = filesBelow(host.dir);
    t.ok(files.length > 0, 'which has files');
    const large = files.filter((path) => statSync(path).size > MAX_SHARD_BYTES);
    t.strictSame(large, [], 'none larger than a shard');
    const plain = files.filter(
      (path) => statSync(path).size > 100_000 && readFileSync(path).includes(Buffer.alloc(64)),
    );
    t.strictSame(plain, [], 'no run of zeros: they are encrypted too');
  }
  const spoken = [client.home, net.bridge.dir, ...net.hosts.map((host) => host.dir), join(net.run.dir, 'bridge.log')]
    .flatMap((path) => (statSync(path).isDirectory() ? filesBelow(path) : [path]))
    .filter((path) => path.endsWith('.log') && readFileSync(path).includes(someWords));
  t.strictSame(spoken, [], 'no log tells the words');
});
