// Reads of the file of a shard, and what they say of the shard when they fail.

import { XcoreError } from '../lib/errors.ts';
import type { HostFs } from './host-fs.ts';
import { codeOf } from './shard-files.ts';

type ShardFile = Awaited<ReturnType<HostFs['open']>>;

/** So many bytes; CORRUPT_SHARD when there are fewer, or when they cannot be read. */
export async function readExactly(file: ShardFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await readSome(file, bytes, done, offset + done);
    if (bytesRead === 0) throw new XcoreError('CORRUPT_SHARD', 'the stored shard is too short');
    done += bytesRead;
  }
  return bytes;
}

/** A sector that cannot be read any more is a harmed shard; what else fails says nothing of it. */
async function readSome(
  file: ShardFile,
  bytes: Buffer,
  from: number,
  position: number,
): Promise<{ bytesRead: number }> {
  try {
    return await file.read(bytes, from, bytes.length - from, position);
  } catch (error) {
    if (codeOf(error) !== 'EIO') throw error;
    throw new XcoreError('CORRUPT_SHARD', 'the disk cannot read the stored shard', { cause: error });
  }
}
