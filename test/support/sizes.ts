// How much the heavy tests move. The defaults fit a run of everything on two cores;
// XCORE_TEST_LONG=1 takes the full sizes, and each can be set alone.

const long = process.env['XCORE_TEST_LONG'] === '1';

function size(name: string, normal: number, full: number): number {
  const given = process.env[name];
  return given ? Number(given) : long ? full : normal;
}

const MiB = 2 ** 20;

/** Sizes of the heavy tests. */
export const SIZES = {
  /** The big file of the recovery test. */
  bigFileBytes: size('XCORE_TEST_BIG_MIB', 1024, 1024) * MiB,
  /** Written and read back by the memory test. */
  memoryFileBytes: size('XCORE_TEST_MEMORY_MIB', 640, 4_096) * MiB,
  /** The cache that it is to be far larger than. */
  memoryCache: long ? '512MiB' : '192MiB',
  /** Small files of the memory test. */
  smallFiles: size('XCORE_TEST_SMALL_FILES', 12_000, 100_000),
  /** Deaths of the daemon in the kill test. */
  kills: size('XCORE_TEST_KILLS', 20, 20),
} as const;
