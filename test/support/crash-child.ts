// Works on a volume until it kills itself at a call to its disk, or behind the last one, and says how far it was.

import { writeSync } from 'node:fs';
import { Progress, work } from './crash-work.ts';
import { Random } from './random.ts';
import { openVolume } from './volume.ts';
import { WatchedDisk } from './watched-disk.ts';

const [dir = '', seed = '', at = '0', steps = '0'] = process.argv.slice(2);
const watched = new WatchedDisk(dir);
const progress = new Progress();
function end(): never {
  writeSync(1, `${progress.closed} ${progress.latest}\n`);
  process.kill(process.pid, 'SIGKILL');
  for (;;); // the signal comes at once, and nothing more must happen
}
watched.onPoint = ({ number }) => {
  if (number === Number(at)) end();
};
const volume = await openVolume(dir, { disk: watched.disk, guard: watched.guard });
volume.segments.setSize(48 * 1024);
await work(volume, new Random(seed), (step) => step < Number(steps), progress);
end();
