// What changes make of the contents of files, as users know it.

import { FALLOC_FL_KEEP_SIZE } from '../../src/vfs/modes.ts';
import { Content } from './content.ts';
import type { Contents, Shown, Version } from './history.ts';

const NOTHING: Version = { content: Content.empty, doubtful: false };

/** A file is made. */
export function empty(path: string) {
  return (before: Contents, after: Shown): Contents => {
    const place = after.get(path);
    return place ? new Map(before).set(place.ino, NOTHING) : before;
  };
}

function changed(ino: number, of: (version: Version) => Version) {
  return (before: Contents): Contents => new Map(before).set(ino, of(before.get(ino) ?? NOTHING));
}

/** A file is cut off, or gets longer. */
export function resized(ino: number, sizeBytes: number): (before: Contents) => Contents {
  return changed(ino, ({ content, doubtful }) => ({
    content: content.resize(sizeBytes),
    doubtful: doubtful && sizeBytes > 0,
  }));
}

/** Bytes are written into a file. */
export function written(ino: number, offset: number, data: Buffer): (before: Contents) => Contents {
  return changed(ino, ({ content, doubtful }) => ({ content: content.write(offset, data), doubtful }));
}

/** As fallocate(2). */
export function allocated(
  ino: number,
  mode: number,
  offset: number,
  lengthBytes: number,
): (before: Contents) => Contents {
  return changed(ino, ({ content, doubtful }) => {
    const keepsBytes = (mode & ~FALLOC_FL_KEEP_SIZE) === 0;
    const sizeBytes = (mode & FALLOC_FL_KEEP_SIZE) === 0 ? offset + lengthBytes : 0;
    const next = keepsBytes ? content : content.zero(offset, lengthBytes);
    return { content: next.resize(Math.max(content.sizeBytes, sizeBytes)), doubtful };
  });
}

/** As copy_file_range(2). */
export function copied(ino: number, offset: number, toIno: number, toOffset: number, lengthBytes: number) {
  return (before: Contents): Contents => {
    const from = before.get(ino) ?? NOTHING;
    const bytes = from.content.slice(offset, lengthBytes);
    return changed(toIno, ({ content, doubtful }) => ({
      content: bytes.length > 0 ? content.write(toOffset, bytes) : content,
      doubtful: doubtful || from.doubtful,
    }))(before);
  };
}
