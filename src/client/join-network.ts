// The first minutes of a mount: how far the network must be there before the folder can be used.

import type { Clock } from '../lib/clock.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Network } from '../net/network.ts';
import { FORKED_ADVICE } from './hand-in.ts';
import { hasState } from './local-volume.ts';
import type { MountedVolume } from './mounted-volume.ts';
import type { Problems } from './problems.ts';

/** A home without local state waits this long for its bridge; one with state does not need it. */
const FIRST_CONNECTION_MS = 20_000;
const CONNECTION_MS = 4_000;

/** What joining works with. */
export interface JoinComponents {
  readonly network: Network;
  readonly mounted: MountedVolume;
  readonly problems: Problems;
  readonly clock: Clock;
  readonly log: Logger;
  /** True once the mount ends: nothing is a problem any more. */
  readonly isStopping: () => boolean;
}

/**
 * Starts the network and brings the volume up to date as far as it can be reached; resolves with
 * lines worth telling the user. A home without state cannot do without: UNREACHABLE, or what the
 * reading of its log failed with. FORKED_LOG and REFUSED end any mount.
 */
export async function joinNetwork({
  network,
  mounted,
  problems,
  clock,
  log,
  isStopping,
}: JoinComponents): Promise<string[]> {
  const { sync } = mounted;
  const notes: string[] = [];
  const connected = Promise.withResolvers<true>();
  const away = (): void => {
    const message = 'the bridge cannot be reached; what is here stays usable, and uploads wait';
    problems.set('connection', 'UNREACHABLE', message, 'nothing to do: tried again until it works');
  };
  network.on('connection', (up) => {
    if (up) {
      connected.resolve(true);
      problems.clear('connection');
    } else if (!isStopping()) {
      away();
    }
  });
  sync.begin();
  await network.start();
  const isKnown = hasState(mounted.volume);
  const ending = new AbortController();
  const timeout = clock.sleep(isKnown ? CONNECTION_MS : FIRST_CONNECTION_MS, ending.signal).then(
    () => false,
    () => false,
  );
  const isConnected = await Promise.race([connected.promise, timeout]);
  ending.abort();
  if (isConnected) {
    await sync.catchUp().catch((error: unknown) => {
      if (isKnown && hasCode(error, 'FORKED_LOG')) {
        throw new XcoreError('FORKED_LOG', `${error.message}; ${FORKED_ADVICE}`, { cause: error });
      }
      // a volume that is here stays usable, whatever the bridge says; half of one never is
      if (!isKnown || hasCode(error, 'FORKED_LOG', 'REFUSED')) throw error;
      log.warn({ error: asError(error) }, 'the volume log could not be read yet');
    });
  } else if (!isKnown) {
    throw new XcoreError(
      'UNREACHABLE',
      'the bridge cannot be reached, and this home has no copy of the volume yet; check the address with xcore doctor',
    );
  } else {
    away();
    notes.push('the bridge cannot be reached; the folder works from what is here and catches up later');
  }
  // a reader of a volume in which nothing was ever published sees an empty folder
  const { tree } = mounted.volume;
  if (tree.isEmpty) tree.format({ uid: 0, gid: 0 }, clock.nowNs());
  return notes;
}
