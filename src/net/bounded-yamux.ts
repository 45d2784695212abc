// yamux whose frames have a bound. The muxer collects a frame until it is whole, however long its header
// says it is; so headers are looked at first.

import type { MessageStream, StreamMuxerFactory } from '@libp2p/interface';
import { yamux } from '@libp2p/yamux';
import { XcoreError } from '../lib/errors.ts';

// https://github.com/hashicorp/yamux/blob/master/spec.md: version, type, flags, stream id, length.
const HEADER_BYTES = 12;
const TYPE_OFFSET = 1;
const LENGTH_OFFSET = 8;
const DATA = 0;

/** yamux with these options; a connection on which a frame is announced that is longer than any window is ended. */
export function boundedYamux(
  options: NonNullable<Parameters<typeof yamux>[0]>,
  maxFrameBytes: number,
): () => StreamMuxerFactory {
  return () => {
    const factory = yamux(options)();
    return {
      protocol: factory.protocol,
      createStreamMuxer(connection) {
        watchHeaders(connection, maxFrameBytes);
        return factory.createStreamMuxer(connection);
      },
    };
  };
}

/** Goes from header to header; its listener comes before the muxer's. */
function watchHeaders(connection: MessageStream, maxFrameBytes: number): void {
  const header = Buffer.alloc(HEADER_BYTES);
  let headerBytes = 0;
  let missing = 0;
  const take = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length;) {
      if (missing > 0) {
        const skipped = Math.min(missing, bytes.length - at);
        missing -= skipped;
        at += skipped;
        continue;
      }
      const taken = bytes.subarray(at, at + HEADER_BYTES - headerBytes);
      header.set(taken, headerBytes);
      headerBytes += taken.length;
      at += taken.length;
      if (headerBytes < HEADER_BYTES) return;
      headerBytes = 0;
      missing = header[TYPE_OFFSET] === DATA ? header.readUInt32BE(LENGTH_OFFSET) : 0;
      if (missing > maxFrameBytes) {
        connection.abort(new XcoreError('PROTOCOL', `a muxed frame of ${missing} bytes`));
        return;
      }
    }
  };
  connection.addEventListener('message', ({ data }) => {
    for (const bytes of data instanceof Uint8Array ? [data] : data) take(bytes);
  });
}
