// Serves a volume without a network on a mount point, for tests of the filesystem alone. Its standard
// output says "ready" once the mount is usable.

import { chooseDriver, isDriverName } from '../../src/fuse/choose-driver.ts';
import { createLogger } from '../../src/lib/log.ts';
import { openVolume } from './volume.ts';

const KERNEL_CACHE_MS = 3_600_000;
/** Nothing is uploaded here, so all that a test ever wrote stays on the disk: some GB in the longest. */
const CAP_BYTES = 64 * 2 ** 30;

const [dir = '', mountPoint = '', driver = '', allowOther = ''] = process.argv.slice(2);
if (!isDriverName(driver)) throw new TypeError(`no driver is called ${driver}`);
const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
const volume = await openVolume(dir, { owner, seal: { idleMs: 2_000, maxAgeMs: 15_000 }, capBytes: CAP_BYTES });
const mount = await chooseDriver(driver);
const session = await mount(
  volume.vfs,
  {
    mountPoint,
    readOnly: false,
    allowOther: allowOther === 'allow-other',
    writebackCache: false,
    entryTimeoutMs: KERNEL_CACHE_MS,
    attributeTimeoutMs: KERNEL_CACHE_MS,
    negativeTimeoutMs: KERNEL_CACHE_MS,
    fsName: 'xcore',
  },
  { log: createLogger({ level: 'warn' }) },
);
process.stdout.write('ready\n');
await session.ended;
await volume.close();
