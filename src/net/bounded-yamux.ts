// yamux whose frames have a bound, whose connections end when nothing comes any more, and which tells of room only when
// it matters. The muxer collects a frame until it is whole, however long its header says it is; so headers are looked at first.

import type { MessageStream, Stream, StreamMuxer, StreamMuxerFactory } from '@libp2p/interface';
import { yamux } from '@libp2p/yamux';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';

/** Each side asks the other one so often for a sign of life, in a frame. */
export const KEEP_ALIVE_MS = 15_000;
/** A connection is looked at this often; one on which nothing came between three looks is dead. */
const LOOK_MS = 15_000;
const SILENT_LOOKS = 2;

// https://github.com/hashicorp/yamux/blob/master/spec.md: version, type, flags, stream id, length.
const HEADER_BYTES = 12;
const TYPE_OFFSET = 1;
const LENGTH_OFFSET = 8;
const DATA = 0;
/** Share of a window that is used before its sender is told of room: about as much of it is never in use on a long line. */
const UPDATED_SHARE = 1 / 16;
/** A window of which that is used again within so long was too small. */
const PROMPT_MS = 20;

/** What is used of @libp2p/yamux beyond its interface. */
interface WindowedStream extends Stream {
  readonly state: number;
  readonly recvWindowCapacity: number;
  readonly maxStreamWindowSize: number;
  readonly epochStart: number;
  recvWindow: number;
  sendWindowUpdate(): void;
}
interface WindowedMuxer extends StreamMuxer {
  _newStream(id: number, state: number, direction: string): WindowedStream;
}
/** StreamState of @libp2p/yamux: neither side waits for a flag of ours. */
const SETTLED_STATES: ReadonlySet<number> = new Set([1, 3]);

/** yamux with these options; a connection is ended on which a frame is announced that is longer than any window, or on which nothing comes for 30 to 45 s. */
export function boundedYamux(
  options: NonNullable<Parameters<typeof yamux>[0]>,
  maxFrameBytes: number,
  clock: Clock = systemClock,
): () => StreamMuxerFactory {
  return () => {
    const factory = yamux({ ...options, keepAliveInterval: KEEP_ALIVE_MS })();
    return {
      protocol: factory.protocol,
      createStreamMuxer(connection) {
        watchHeaders(connection, maxFrameBytes);
        watchSilence(connection, clock);
        const muxer = factory.createStreamMuxer(connection) as StreamMuxer as WindowedMuxer;
        const newStream = muxer._newStream.bind(muxer);
        muxer._newStream = (...args) => withRareUpdates(newStream(...args), clock);
        return muxer;
      },
    };
  };
}

/**
 * Tells the sender of room once enough of the window is used: after each frame, as @libp2p/yamux does it, an update is a
 * packet, and an answer of one frame two of them.
 */
function withRareUpdates(stream: WindowedStream, clock: Clock): WindowedStream {
  const update = stream.sendWindowUpdate.bind(stream);
  stream.sendWindowUpdate = () => {
    if (SETTLED_STATES.has(stream.state)) {
      if (stream.recvWindow - stream.recvWindowCapacity <= UPDATED_SHARE * stream.recvWindow) return;
      // round trips are measured in whole milliseconds, of which a short one has none
      if (clock.now() - stream.epochStart <= PROMPT_MS) {
        stream.recvWindow = Math.min(2 * stream.recvWindow, stream.maxStreamWindowSize);
      }
    }
    update();
  };
  return stream;
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

/** Any byte is a sign of life: an answer may have to wait behind much else, on a slow line or in a relay. */
function watchSilence(connection: MessageStream, clock: Clock): void {
  let silentLooks = -1;
  const timer = clock.after(LOOK_MS, () => look(), { background: true });
  const look = (): void => {
    silentLooks += 1;
    if (silentLooks < SILENT_LOOKS) timer.restart();
    else connection.abort(new XcoreError('UNREACHABLE', 'nothing came on the connection any more'));
  };
  connection.addEventListener('message', () => {
    silentLooks = -1;
  });
  connection.addEventListener('close', () => timer.cancel());
}
