// A file in the folder of an index that says how far it was when it was last closed: what LevelDB loses from
// its end without a word is missed at the next start.

import { join } from 'node:path';
import { writeFileAtomic } from '../lib/atomic-file.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';

const VERSION = 1;

function pathOf(indexDir: string): string {
  return join(indexDir, 'closed.json');
}

/** Number of the last batch when the index was last closed; 0 where nothing tells. */
export async function readClosedBatch(indexDir: string, disk: Disk = systemDisk): Promise<number> {
  try {
    const text = (await disk.readFile(pathOf(indexDir))).toString();
    const content = JSON.parse(text) as { version?: unknown; batch?: unknown };
    return content.version === VERSION && typeof content.batch === 'number' ? content.batch : 0;
  } catch {
    return 0;
  }
}

/** Notes the last batch of an index that is closed. */
export async function writeClosedBatch(indexDir: string, batch: number, disk?: Disk): Promise<void> {
  await writeFileAtomic(pathOf(indexDir), `${JSON.stringify({ version: VERSION, batch })}\n`, {
    mode: 0o600,
    ...(disk && { disk }),
  });
}
