// Raises kernel limits of a mount that only root may raise.

import { writeFile } from 'node:fs/promises';
import { MAX_IO_BYTES } from './abi.ts';
import { mountAt } from './mount-table.ts';
import type { Logger } from '../lib/log.ts';

/**
 * Lets the kernel read ahead 1 MiB instead of 128 KiB. Best effort: without it the mount is slower,
 * not wrong.
 */
export async function tuneMount(place: string, components: { log: Logger }): Promise<void> {
  const device = mountAt(place)?.device;
  if (device === undefined || process.geteuid?.() !== 0) return;
  try {
    await writeFile(`/sys/class/bdi/${device}/read_ahead_kb`, String(MAX_IO_BYTES / 1024));
  } catch (error) {
    components.log.debug({ err: error }, 'read-ahead stays at the kernel default');
  }
}
