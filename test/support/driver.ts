// The driver that a test run mounts with: XCORE_TEST_DRIVER, else what xcore picks by itself.

import { isDriverName } from '../../src/fuse/choose-driver.ts';
import type { DriverName } from '../../src/fuse/choose-driver.ts';

const named = process.env['XCORE_TEST_DRIVER'] ?? 'auto';
if (!isDriverName(named)) throw new TypeError(`XCORE_TEST_DRIVER=${named}: no driver is called that`);

/** Name of the driver under test. */
export const DRIVER: DriverName = named;

/** Why a test is skipped: a limit of the fuse-native driver, as native-notes/fuse-native.md lists it. False otherwise. */
export function limit(of: string): string | false {
  return DRIVER === 'fuse-native' ? `fuse-native: ${of}` : false;
}
