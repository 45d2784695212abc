// Opens the bridge's store: its format version. Knows nothing of what is kept in it.

import { LevelStore } from '../lib/level-store.ts';
import { openLevel } from '../lib/open-level.ts';
import type { Store } from '../lib/store.ts';

/** Version of the stored format; another one is refused. */
export const FORMAT_VERSION = 1;

/** Opens or creates the store in `dir`. HOME_LOCKED when another bridge has it, BAD_FORMAT when its version is unknown. */
export async function openLevelStore(dir: string): Promise<Store> {
  return new LevelStore(await openLevel(dir, { formatVersion: FORMAT_VERSION, user: 'bridge' }));
}
