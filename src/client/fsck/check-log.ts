// Whether the volume log that the bridge shows is one chain of the owner's entries, and the one that
// this device knows.

import { asError } from '../../lib/errors.ts';
import type { Network } from '../../net/network.ts';
import type { HeadState } from '../../tree/records.ts';
import type { Findings } from '../../tree/findings.ts';
import type { EntryCodec } from '../log-entry.ts';

const READ_LOG_BYTES = 2 * 1024 * 1024;

/** Reads all headers; returns how many there are. What is wrong with them no repair here sets right. */
export async function checkLog(
  network: Network,
  codec: EntryCodec,
  known: HeadState | null,
  findings: Findings,
  progress: (done: number, total: number) => void,
): Promise<number> {
  let previous: Buffer = Buffer.alloc(32);
  for (let seq = 1; ;) {
    const { entries, head } = await network.readLog(seq, READ_LOG_BYTES, true);
    const seen = Math.max(known?.seq ?? 0, known?.seenSeq ?? 0);
    if (head.seq < seen) {
      findings.add('log', `the bridge shows ${head.seq} entries, and this device has seen ${seen}`, 'none');
    }
    for (const wire of entries) {
      try {
        previous = codec.open(wire, seq, previous).hash;
      } catch (error) {
        findings.add('log', asError(error).message, 'none');
        return seq - 1;
      }
      if (known !== null && seq === known.seq && !previous.equals(known.hash)) {
        findings.add('log', `entry ${seq} is not the one that this device knows`, 'none');
      }
      seq++;
    }
    progress(seq - 1, head.seq);
    if (seq > head.seq) return head.seq;
    if (entries.length === 0) {
      findings.add('log', `the bridge names entry ${head.seq} and does not show entry ${seq}`, 'none');
      return seq - 1;
    }
  }
}
