// What is in a file, as its users know it: never changed, only made anew, and large files share what they have in common.

import { createHash } from 'node:crypto';

const PAGE_BYTES = 65_536;
/** What a user reads at once. */
export const PART_BYTES: number = 16 * PAGE_BYTES;
const ZEROS = Buffer.alloc(PAGE_BYTES);

interface Page {
  readonly bytes: Buffer;
  readonly hash: string;
}

/** Bytes of a file. */
export class Content {
  static readonly empty: Content = new Content(0, new Map());
  readonly sizeBytes: number;
  /** All that is not zeros, by number; with zeros behind the end. */
  readonly #pages: ReadonlyMap<number, Page>;

  private constructor(sizeBytes: number, pages: ReadonlyMap<number, Page>) {
    this.sizeBytes = sizeBytes;
    this.#pages = pages;
  }

  static of(bytes: Buffer): Content {
    return Content.empty.write(0, bytes);
  }

  /** With other bytes from `offset` on. */
  write(offset: number, bytes: Buffer): Content {
    const pages = new Map(this.#pages);
    for (let at = 0; at < bytes.length;) {
      const number = Math.floor((offset + at) / PAGE_BYTES);
      const from = offset + at - number * PAGE_BYTES;
      const part = bytes.subarray(at, at + PAGE_BYTES - from);
      const page = Buffer.from(pages.get(number)?.bytes ?? ZEROS);
      part.copy(page, from);
      put(pages, number, page);
      at += part.length;
    }
    return new Content(Math.max(this.sizeBytes, offset + bytes.length), pages);
  }

  /** Cut off, or longer with zeros. */
  resize(sizeBytes: number): Content {
    const pages = new Map(this.#pages);
    const last = Math.floor(sizeBytes / PAGE_BYTES);
    for (const [number, { bytes }] of this.#pages) {
      if (number > last) pages.delete(number);
      if (number === last) put(pages, number, Buffer.from(bytes).fill(0, sizeBytes - last * PAGE_BYTES));
    }
    return new Content(sizeBytes, pages);
  }

  /** With zeros from `offset` on, as far as the file goes. */
  zero(offset: number, lengthBytes: number): Content {
    const end = Math.min(this.sizeBytes, offset + lengthBytes);
    return end > offset ? this.write(offset, Buffer.alloc(end - offset)) : this;
  }

  /** A part of it, shorter at the end. */
  slice(offset: number, lengthBytes: number): Buffer {
    const end = Math.min(this.sizeBytes, offset + lengthBytes);
    const part = Buffer.alloc(Math.max(0, end - offset));
    for (const [number, { bytes }] of this.#pages) {
      const from = number * PAGE_BYTES;
      if (from < end && from + PAGE_BYTES > offset) {
        bytes.copy(part, Math.max(0, from - offset), Math.max(0, offset - from), Math.max(0, end - from));
      }
    }
    return part;
  }

  /** What stands for each part that a user reads at once. */
  parts(): string[] {
    const parts: string[] = [];
    for (let from = 0; from < this.sizeBytes; from += PART_BYTES) {
      let key = String(Math.min(PART_BYTES, this.sizeBytes - from));
      for (let page = 0; page * PAGE_BYTES < PART_BYTES; page += 1) {
        const hash = this.#pages.get(from / PAGE_BYTES + page)?.hash;
        if (hash !== undefined) key += ` ${page} ${hash}`;
      }
      parts.push(key);
    }
    return parts;
  }
}

function put(pages: Map<number, Page>, number: number, bytes: Buffer): void {
  if (bytes.equals(ZEROS)) pages.delete(number);
  else pages.set(number, { bytes, hash: createHash('sha1').update(bytes).digest('base64') });
}
