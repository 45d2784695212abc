// What the daemon behind a mount answers on its control socket. The command line is its only caller
// in this package; `xcore status --json` prints MountStatus as it is, so fields are only ever added.

import type { HostInfo, Routes } from '../net/network.ts';

/** Something that is wrong, and what the user can do about it. */
export interface StatusProblem {
  readonly timeMs: number;
  readonly code: string;
  readonly message: string;
  readonly advice: string;
}

/** Work of a device that lost its lease: kept, never published. */
export interface SetAside {
  readonly path: string;
  readonly sizeBytes: number;
  readonly timeMs: number;
}

/** State of one mount. */
export interface MountStatus {
  readonly mountPoint: string;
  readonly pid: number;
  readonly startedMs: number;
  /** Owner public key, hex. */
  readonly volume: string;
  readonly device: string;
  /** Whether this device writes the volume now; if not, `leaseHolder` does. */
  readonly writer: boolean;
  readonly readOnly: boolean;
  readonly leaseHolder: string;
  /** Bytes that only this machine has. */
  readonly stagedBytes: number;
  /** Live bytes of the volume that enough hosts hold. */
  readonly durableBytes: number;
  readonly files: number;
  readonly cache: { readonly usedBytes: number; readonly capBytes: number };
  readonly uploads: { readonly waiting: number; readonly active: number; readonly uploadedBytes: number };
  readonly log: { readonly headSeq: number; readonly unpublished: number };
  readonly network: {
    readonly bridge: string;
    /** The embedded network: everything is on this machine only. */
    readonly local: boolean;
    readonly connected: boolean;
    readonly mirrors: number;
    readonly hosts: readonly HostInfo[];
    /** How hosts are connected to this device now. */
    readonly routes: Routes;
  };
  readonly problems: readonly StatusProblem[];
  readonly setAside: readonly SetAside[];
  readonly memoryBytes: number;
}

/** Progress of work that makes everything durable. */
export interface FlushProgress {
  readonly remainingBytes: number;
  readonly remainingShards: number;
  readonly totalBytes: number;
}

/** Calls on the control socket: parameters and result of each; those marked report FlushProgress while they run. */
export interface ControlCalls {
  status: { params: Record<string, never>; result: MountStatus };
  /** Reports progress; returns when all that was written before is durable. */
  flush: { params: Record<string, never>; result: Record<string, never> };
  /** Reports progress unless `wait` is false; unmounts, answers, and the daemon ends. EBUSY while files are open. */
  unmount: { params: { wait: boolean }; result: Record<string, never> };
  takeOver: { params: Record<string, never>; result: Record<string, never> };
}
