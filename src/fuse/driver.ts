// What a FUSE driver offers to the client, whichever way it speaks to the kernel.

import type { Logger } from '../lib/log.ts';
import type { Filesystem } from '../vfs/filesystem.ts';

/** How a filesystem is mounted. */
export interface MountOptions {
  /** An existing, empty directory. */
  readonly mountPoint: string;
  readonly readOnly: boolean;
  /** Users other than the one who mounts may enter; permissions still apply. */
  readonly allowOther: boolean;
  /** Programs of the mount may not be run. */
  readonly noExec?: boolean;
  /** Writes stay in the kernel's page cache and arrive later, merged. */
  readonly writebackCache: boolean;
  /** How long the kernel trusts a name it looked up. */
  readonly entryTimeoutMs: number;
  /** How long the kernel trusts attributes. */
  readonly attributeTimeoutMs: number;
  /** How long the kernel remembers that a name does not exist; 0 is not at all. */
  readonly negativeTimeoutMs: number;
  /** The device name that df and mount show. */
  readonly fsName: string;
}

/** One live mount. */
export interface Session {
  /** Resolves when the mount has ended: by unmount(), by umount(8) from outside, or by abort. Never rejects. */
  readonly ended: Promise<void>;
  /** Detaches the mount; EBUSY while something uses it, unless lazy. Resolves at once when it has ended already. */
  unmount(options?: { lazy?: boolean }): Promise<void>;
  /**
   * Makes the kernel forget the attributes of an inode, and its cached pages from `offset` on
   * (`length` 0 is to the end). `offset` -1 is attributes only; the default is all pages.
   */
  invalidateInode(ino: number, offset?: number, length?: number): void;
  /** Makes the kernel forget what it knows about a name, be it there or not. */
  invalidateEntry(parent: number, name: string): void;
  /** Resolves when every invalidation asked for so far has reached the kernel. */
  invalidated(): Promise<void>;
}

/** Parts that a driver is built from. */
export interface DriverComponents {
  readonly log: Logger;
}

/**
 * Mounts a filesystem and resolves once it is usable. FUSE_MISSING when this machine or user cannot
 * mount, MOUNT_BUSY when the mount point is taken or not empty, ENOENT or ENOTDIR when it is no directory.
 */
export type MountDriver = (
  filesystem: Filesystem,
  options: MountOptions,
  components: DriverComponents,
) => Promise<Session>;
