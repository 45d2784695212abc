// Opens the bridge's store: its format version. Knows nothing of what is kept in it.

import { LevelStore } from '../lib/level-store.ts';
import type { Logger } from '../lib/log.ts';
import { openLevel } from '../lib/open-level.ts';
import type { Store } from '../lib/store.ts';

/** Version of the stored format; another one is refused. */
export const FORMAT_VERSION = 2;
/** Its shards name their hosts; each is written in the new way when it changes. */
const OLDER_VERSIONS = [1];
// Few large tables: LevelDB keeps the index and the filter of each open one in memory, about 0.4 MB of these, and looks a key
// up in a table that is open in microseconds. Beyond so many they are closed and opened again.
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_OPEN_FILES = 512;
const WRITE_BUFFER_BYTES = 16 * 1024 * 1024;
const CACHE_BYTES = 32 * 1024 * 1024;

/** Opens or creates the store in `dir`. HOME_LOCKED when another bridge has it, BAD_FORMAT when its version is unknown. */
export async function openLevelStore(dir: string, log?: Logger): Promise<Store> {
  const db = await openLevel(dir, {
    formatVersion: FORMAT_VERSION,
    olderVersions: OLDER_VERSIONS,
    user: 'bridge',
    maxFileBytes: MAX_FILE_BYTES,
    maxOpenFiles: MAX_OPEN_FILES,
    writeBufferBytes: WRITE_BUFFER_BYTES,
    cacheBytes: CACHE_BYTES,
  });
  return new LevelStore(db, { dir, user: 'bridge', ...(log ? { log } : {}) });
}
