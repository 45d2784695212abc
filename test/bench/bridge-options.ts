// What the measured bridge is told.

import type { BridgeOptions } from '../../src/bridge/options.ts';

/** Kept so large that no volume is ever full, and no clock has to move for repair. */
export const BENCH_OPTIONS: Partial<BridgeOptions> = {
  maxHosts: 100_000,
  quotaBytes: 2 ** 50,
  repairBytesPerSecond: 0,
};
