// A file in the folder of an index that says how far it was when it was last closed: what LevelDB loses from
// its end without a word is missed at the next start.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../lib/atomic-file.ts';
import type { Disk } from '../lib/disk.ts';

const VERSION = 1;

function pathOf(indexDir: string): string {
  return join(indexDir, 'closed.json');
}

/** Number of the last batch when the index was last closed; 0 where nothing tells. */
export function readClosedBatch(indexDir: string): number {
  try {
    const content = JSON.parse(readFileSync(pathOf(indexDir), 'utf8')) as { version?: unknown; batch?: unknown };
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
