// Which driver a name stands for. A driver's code is loaded only when it is asked for.

import type { MountDriver } from './driver.ts';

/** The names that may be asked for. */
export const DRIVER_NAMES = ['auto', 'kernel', 'fuse-native'] as const;

/** One of DRIVER_NAMES. */
export type DriverName = (typeof DRIVER_NAMES)[number];

/** Whether a word names a driver. */
export function isDriverName(word: string): word is DriverName {
  return DRIVER_NAMES.some((name) => name === word);
}

/** The driver of that name; `auto` is the kernel's own protocol, which Linux always has. */
export async function chooseDriver(name: DriverName): Promise<MountDriver> {
  if (name === 'fuse-native' || (name === 'auto' && process.platform !== 'linux')) {
    return (await import('./fuse-native/driver.ts')).mountFuseNative;
  }
  return (await import('./kernel-driver.ts')).mountKernel;
}
