// Memory in one page of 2 MiB in place of 512, where the system has such: what is read from the disk into it, and what
// goes from it to the kernel, is looked up page by page. Knows nothing of what it is for.

import koffi from 'koffi';

/** Of x64, and of most other systems; elsewhere the advice is not taken. */
export const HUGE_PAGE_BYTES = 2 * 1024 * 1024;

/** Memory of this size has one such page in it. */
export const HUGE_MEMORY_BYTES = 2 * HUGE_PAGE_BYTES;

/** Of Linux (linux/mman-common.h). */
const MADV_HUGEPAGE = 14;

const madvise = load();

/** Where in memory of HUGE_MEMORY_BYTES a huge page begins. */
export function hugePageIn(memory: ArrayBufferLike): number {
  const beyond = Number(koffi.address(new Uint8Array(memory))) % HUGE_PAGE_BYTES;
  return beyond === 0 ? 0 : HUGE_PAGE_BYTES - beyond;
}

/** Asks for a huge page in memory of HUGE_MEMORY_BYTES that nobody has used yet; it is as good memory without one. Returns where it begins. */
export function adviseHugePage(memory: ArrayBufferLike): number {
  const start = hugePageIn(memory);
  if (memory.byteLength < start + HUGE_PAGE_BYTES) throw new RangeError(`no huge page in ${memory.byteLength} bytes`);
  madvise?.(Number(koffi.address(new Uint8Array(memory))) + start, HUGE_PAGE_BYTES, MADV_HUGEPAGE);
  return start;
}

function load(): ((address: number, sizeBytes: number, advice: number) => number) | null {
  if (process.platform !== 'linux') return null;
  return koffi.load(null).func('int madvise(uintptr_t address, size_t sizeBytes, int advice)');
}
