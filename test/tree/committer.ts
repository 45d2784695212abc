// Commits pairs of equal records until it is killed, and says after each commit which was the last.

import { writeSync } from 'node:fs';
import { RecordStore } from '../../src/tree/record-store.ts';
import { xattrsKey } from '../../src/tree/keys.ts';
import { indexSealer, LINEAGE } from '../support/volume.ts';

const dir = process.argv[2];
if (dir === undefined) throw new TypeError('usage: committer.ts DIR');
const store = await RecordStore.open(dir, indexSealer(), LINEAGE);
store.setRecording(true);
const last = store.get(xattrsKey(1)) as Map<string, Uint8Array> | undefined;
const start = last === undefined ? 0 : Buffer.from(last.get('n') as Uint8Array).readUInt32LE();
writeSync(1, 'open\n');
for (let n = start + 1; ; n++) {
  const value = Buffer.alloc(4);
  value.writeUInt32LE(n);
  // inode 1 and 2 must never differ; inode 10 + n must be there as often as was said
  for (const ino of [1, 2, 10 + n]) store.put(xattrsKey(ino), new Map([['n', value]]));
  await store.commit(n % 50 === 0);
  writeSync(1, `${n} ${store.lastCommit}\n`);
}
