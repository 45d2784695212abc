// What a check of an open volume's index finds.

import { TreeCheck } from '../../src/tree/check-tree.ts';
import { Findings } from '../../src/tree/findings.ts';
import { NAME_KEY } from './volume.ts';
import type { OpenVolume } from './volume.ts';

/** Findings of the committed state, as sentences; none in a sound volume. */
export async function findingsIn({ store }: Pick<OpenVolume, 'store'>): Promise<string[]> {
  await store.commit();
  const findings = new Findings();
  await new TreeCheck(store, NAME_KEY, findings).run();
  return findings.list.map(({ message }) => message);
}
