// The state of a mount as `xcore status` shows it.

import type { NetworkSpace, NetworkStatus } from '../net/network.ts';
import type { MountStatus, SetAside, StatusProblem } from './control-api.ts';
import type { LocalVolume } from './local-volume.ts';
import type { Uploader } from './uploader.ts';
import type { VolumeSync } from './volume-sync.ts';

/** What a status is made of. */
export interface StatusSources {
  readonly mountPoint: string;
  readonly startedMs: number;
  readonly ownerPublicKey: Buffer;
  readonly device: string;
  readonly readOnly: boolean;
  readonly isLocal: boolean;
  readonly volume: LocalVolume;
  readonly uploader: Uploader;
  readonly sync: VolumeSync;
  readonly network: NetworkStatus;
  readonly space: NetworkSpace | null;
  readonly problems: readonly StatusProblem[];
  readonly setAside: readonly SetAside[];
}

const ADVICE: Record<string, string> = {
  CORRUPT_SHARD: 'nothing to do: another mirror was used, and the bridge was told',
  NOT_FOUND: 'nothing to do: another mirror was used, and the bridge was told',
  UNREACHABLE: 'nothing to do if other mirrors answer; check this machine’s network if none does',
  TIMEOUT: 'nothing to do if other mirrors answer; check this machine’s network if none does',
  REFUSED: 'do what it says, if it says something; it is tried again until it works',
  NO_MIRROR: 'wait until hosts come back; the read can be repeated then',
};

/** Bytes that only this machine has. */
export function stagedBytesOf(volume: LocalVolume, uploader: Uploader): number {
  return uploader.bytes + volume.segments.unsealedBytes;
}

/** Commits that other devices cannot see yet. */
export function unpublishedOf({ store }: LocalVolume): number {
  return store.lastCommit - store.firstUnpublished + 1;
}

/** Puts a status together. */
export function statusOf(s: StatusSources): MountStatus {
  const { volume, uploader, sync, network } = s;
  const counters = volume.tree.totals;
  const stagedBytes = stagedBytesOf(volume, uploader);
  const seen = network.problems.map(({ timeMs, code, message }) => ({
    timeMs,
    code,
    message,
    advice: ADVICE[code] ?? 'nothing to do: tried again until it works',
  }));
  const aside = s.setAside.map(({ path, timeMs }) => ({
    timeMs,
    code: 'LEASE_LOST',
    message: `work that could not be published is kept in ${path}`,
    advice: 'nothing reads it by itself; remove the folder once you do not need it',
  }));
  return {
    mountPoint: s.mountPoint,
    pid: process.pid,
    startedMs: s.startedMs,
    volume: s.ownerPublicKey.toString('hex'),
    device: s.device,
    writer: sync.writer,
    readOnly: s.readOnly || !sync.writer,
    leaseHolder: sync.holder,
    stagedBytes,
    durableBytes: Math.max(0, counters.storedBytes - stagedBytes),
    files: counters.inodes,
    cache: { usedBytes: volume.files.usedBytes, capBytes: volume.files.capBytes },
    uploads: { waiting: uploader.waiting, active: uploader.active, uploadedBytes: network.uploadedBytes },
    log: { headSeq: volume.tree.head.seq, unpublished: unpublishedOf(volume) },
    network: {
      bridge: network.bridge,
      local: s.isLocal,
      connected: network.connected,
      mirrors: s.space?.mirrors ?? 0,
      hosts: s.space?.hosts ?? [],
      routes: network.routes,
    },
    problems: [...s.problems, ...aside, ...seen],
    setAside: s.setAside,
    memoryBytes: process.memoryUsage.rss(),
  };
}
