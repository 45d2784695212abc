// The bars that umount, flush and fsck show on a terminal.

import { SingleBar } from 'cli-progress';
import type { FlushProgress } from '../client/control-api.ts';
import type { FsckProgress } from '../client/fsck/check-volume.ts';
import { formatBytes } from '../lib/units.ts';

/** A bar that takes progress; without a terminal, or with `quiet`, it shows nothing. */
export interface FlushBar {
  readonly update: (progress: FlushProgress) => void;
  readonly stop: () => void;
}

/** Makes a bar on standard error. It appears with the first progress that has something left to do. */
export function flushBar(quiet: boolean): FlushBar {
  if (quiet || !process.stderr.isTTY) return { update: () => undefined, stop: () => undefined };
  const bar = new SingleBar({
    stream: process.stderr,
    format: 'storing [{bar}] {percentage}% | {left} left',
    clearOnComplete: true,
    hideCursor: true,
    etaBuffer: 50,
  });
  let started = false;
  return {
    update: ({ remainingBytes, totalBytes }) => {
      const left = { left: formatBytes(remainingBytes) };
      const total = Math.max(totalBytes, 1);
      if (!started) {
        if (remainingBytes === 0) return;
        started = true;
        bar.start(total, total - remainingBytes, left);
        return;
      }
      // More may be written while it runs.
      bar.setTotal(total);
      bar.update(Math.max(0, total - remainingBytes), left);
    },
    stop: () => {
      if (started) bar.stop();
    },
  };
}

/** A bar of a check; without a terminal, or with `quiet`, it shows nothing. */
export interface FsckBar {
  readonly update: FsckProgress;
  readonly stop: () => void;
}

/** Makes a bar on standard error that says what is looked at. */
export function fsckBar(quiet: boolean): FsckBar {
  if (quiet || !process.stderr.isTTY) return { update: () => undefined, stop: () => undefined };
  const bar = new SingleBar({
    stream: process.stderr,
    format: 'checking {what} [{bar}] {percentage}%',
    clearOnComplete: true,
    hideCursor: true,
  });
  let started = false;
  return {
    update: (what, done, total) => {
      if (!started) bar.start(Math.max(total, 1), 0, { what });
      started = true;
      bar.setTotal(Math.max(total, 1));
      bar.update(Math.min(done, total), { what });
    },
    stop: () => {
      if (started) bar.stop();
    },
  };
}
