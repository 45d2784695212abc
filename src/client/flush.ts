// Waits until everything written so far is durable and published.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { FlushProgress } from './control-api.ts';
import type { LocalVolume } from './local-volume.ts';
import { stagedBytesOf } from './status.ts';
import type { Uploader } from './uploader.ts';
import type { VolumeSync } from './volume-sync.ts';

const PROGRESS_INTERVAL_MS = 200;

/** What a flush looks at. */
export interface FlushSources {
  readonly volume: LocalVolume;
  readonly uploader: Uploader;
  readonly sync: VolumeSync;
}

/**
 * Resolves when all that was written before the call is held by enough hosts and in the log.
 * LEASE_HELD when another device has to let go first; ABORTED when the caller gave up.
 */
export async function flushVolume(
  sources: () => FlushSources,
  progress: (progress: FlushProgress) => void,
  signal: AbortSignal,
  clock: Clock,
): Promise<void> {
  const { volume, uploader } = sources();
  const relax = uploader.hurry();
  try {
    await waitUntilPublished(sources, volume, progress, signal, clock);
  } finally {
    relax();
  }
}

async function waitUntilPublished(
  sources: () => FlushSources,
  volume: LocalVolume,
  progress: (progress: FlushProgress) => void,
  signal: AbortSignal,
  clock: Clock,
): Promise<void> {
  await volume.segments.seal();
  await volume.store.commit(true);
  const target = volume.store.lastCommit;
  let totalBytes = 0;
  let isDue = true;
  for (;;) {
    const { uploader, sync, volume: current } = sources();
    if (current !== volume) {
      throw new XcoreError(
        'LEASE_LOST',
        'another device took over; what was staged here is set aside, see xcore status',
      );
    }
    const remainingBytes = stagedBytesOf(volume, uploader);
    totalBytes = Math.max(totalBytes, remainingBytes);
    progress({ remainingBytes, remainingShards: uploader.waiting + uploader.active, totalBytes });
    if (volume.store.firstUnpublished > target) return;
    if (!sync.writer) {
      throw new XcoreError('LEASE_HELD', 'another device writes this volume; what is staged here waits for it');
    }
    // a step that is asked for after each step would leave no time for anything else
    if (isDue) sync.nudge();
    isDue = await pause(sync.nextStep(), PROGRESS_INTERVAL_MS, signal, clock);
    if (signal.aborted) throw new XcoreError('ABORTED', 'stopped waiting; uploads go on');
  }
}

/** Waits for a step, or until time is up, or for the signal; tells whether time was up. */
function pause(step: Promise<void>, ms: number, signal: AbortSignal, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (isTimeUp: boolean): void => {
      timer.cancel();
      signal.removeEventListener('abort', aborted);
      resolve(isTimeUp);
    };
    const aborted = (): void => end(false);
    const timer = clock.after(ms, () => end(true));
    signal.addEventListener('abort', aborted, { once: true });
    void step.then(aborted);
  });
}
