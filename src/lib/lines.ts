// Lines of text out of a byte stream, with a bound on their length.

import type { Readable } from 'node:stream';

/**
 * Calls back with each line that ends with a newline; past `maxBytes` without one it calls back
 * `onTooLong` (which destroys the stream unless told otherwise) and passes on nothing more.
 */
export function readLines(
  stream: Readable,
  maxBytes: number,
  onLine: (line: string) => void,
  onTooLong: () => void = () => stream.destroy(),
): void {
  let parts: Buffer[] = [];
  let heldBytes = 0;
  let ended = false;
  stream.on('data', (data: Buffer) => {
    if (ended) return;
    let start = 0;
    for (let end = data.indexOf(10, start); end !== -1; end = data.indexOf(10, start)) {
      parts.push(data.subarray(start, end));
      heldBytes += end - start;
      start = end + 1;
      if (heldBytes > maxBytes) break;
      const line = Buffer.concat(parts).toString('utf8');
      parts = [];
      heldBytes = 0;
      if (line.trim() !== '') onLine(line);
    }
    parts.push(data.subarray(start));
    heldBytes += data.length - start;
    if (heldBytes > maxBytes) {
      ended = true;
      parts = [];
      onTooLong();
    }
  });
}
