// A volume's quota, as a program on the mount and its user meet it.

import fs from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { MountStatus } from '../../src/client/control-api.ts';
import { World } from '../client/device.ts';
import { Client } from '../support/client.ts';
import { Random } from '../support/random.ts';
import { Run, until } from '../support/run.ts';

const QUOTA_BYTES = 6_000_000;
const FILE_BYTES = 1_000_000;

t.setTimeout(180_000);

await t.test(
  'beyond the quota a write is EDQUOT, the status says so, nothing is lost, and removing helps',
  async (t) => {
    const world = await World.start(t, 1, { quotaBytes: QUOTA_BYTES });
    const client = new Client(new Run(t), 'a');
    await client.init(world.address);
    const dir = await client.mount();
    // the bridge's figures are asked for as soon as it is connected
    await until('the quota is known', async () => {
      const { blocks, bsize } = await fs.promises.statfs(dir);
      return blocks * bsize <= QUOTA_BYTES;
    });
    const random = new Random('quota');
    const written = new Map<string, Buffer>();
    let failure = 0;
    for (let n = 0; failure === 0 && n < 20; n++) {
      const content = random.bytes(FILE_BYTES);
      const file = await fs.promises.open(join(dir, `file-${n}`), 'w');
      try {
        for (let at = 0; at < content.length; at += 100_000) await file.write(content, at, 100_000, at);
        written.set(`file-${n}`, content);
      } catch (error) {
        failure = -((error as NodeJS.ErrnoException).errno ?? 0);
      } finally {
        await file.close();
      }
    }
    t.equal(failure, constants.errno.EDQUOT);
    t.ok(written.size >= 4 && written.size * FILE_BYTES <= QUOTA_BYTES, `${written.size} files fit`);
    const ofQuota = ({ problems }: MountStatus): MountStatus['problems'] =>
      problems.filter(({ code }) => code === 'QUOTA');
    const told = ofQuota(await client.status());
    t.match(told, [{ code: 'QUOTA', message: /quota of .* is used up/, advice: /remove files/ }]);
    t.match(await client.must(['status']), /quota of .* is used up/);
    const { bavail, bsize } = await fs.promises.statfs(dir);
    t.ok(bavail * bsize < FILE_BYTES, 'df shows it');

    await client.flush();
    t.equal((await client.status()).stagedBytes, 0, 'all that was taken has room');
    for (const [name, content] of written) t.ok((await fs.promises.readFile(join(dir, name))).equals(content), name);
    await fs.promises.rename(join(dir, 'file-0'), join(dir, 'renamed'));

    for (const name of ['renamed', 'file-1', 'file-2']) await fs.promises.unlink(join(dir, name));
    await client.flush();
    const more = random.bytes(100_000);
    await until('there is room again', () =>
      fs.promises.writeFile(join(dir, 'more'), more).then(
        () => true,
        () => false,
      ),
    );
    await client.flush();
    t.ok((await fs.promises.readFile(join(dir, 'more'))).equals(more));
    await client.untilStatus('the quota is no problem any more', (status) => ofQuota(status).length === 0);
    await client.umount();
  },
);
