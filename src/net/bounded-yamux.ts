// yamux whose frames have a bound and are read as they come, whose connections end when nothing comes any more, and which
// tells of room only when it matters.

import type { MessageStream, Stream, StreamMuxer, StreamMuxerFactory } from '@libp2p/interface';
import { yamux } from '@libp2p/yamux';
import type { Uint8ArrayList } from 'uint8arraylist';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { SETTLED_STATES, shorten } from './stream-shortcuts.ts';
import type { Divertible, ShortenedStream } from './stream-shortcuts.ts';
import { YamuxReader } from './yamux-reader.ts';
import type { YamuxSink, YamuxSinks } from './yamux-reader.ts';

/** Each side asks the other one so often for a sign of life, in a frame. */
export const KEEP_ALIVE_MS = 15_000;
/** A connection is looked at this often; one on which nothing came between three looks is dead. */
const LOOK_MS = 15_000;
const SILENT_LOOKS = 2;

/** Share of a window that is used before its sender is told of room: about as much of it is never in use on a long line. */
const UPDATED_SHARE = 1 / 16;
/** A window of which that is used again within so long was too small. */
const PROMPT_MS = 20;

/** What is used of @libp2p/yamux beyond its interface. */
type WindowedStream = Stream &
  ShortenedStream &
  YamuxSink & {
    readonly maxStreamWindowSize: number;
    readonly epochStart: number;
    recvWindow: number;
  };
interface WindowedMuxer extends Omit<StreamMuxer, 'streams'>, YamuxSinks {
  _newStream(id: number, state: number, direction: string): WindowedStream;
  onData(data: Uint8Array | Iterable<Uint8Array>): void;
  send(data: Uint8Array | Uint8ArrayList): boolean;
}

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
        const isAlive = watchSilence(connection, clock);
        const muxer = factory.createStreamMuxer(connection) as StreamMuxer as unknown as WindowedMuxer;
        const reader = new YamuxReader(muxer, maxFrameBytes);
        muxer.onData = (data) => {
          isAlive();
          reader.take(data);
        };
        (connection as MessageStream & Partial<Divertible>).divert?.((bytes) => {
          try {
            muxer.onData(bytes);
          } catch (error) {
            muxer.abort(asError(error));
            connection.abort(asError(error));
          }
        });
        const newStream = muxer._newStream.bind(muxer);
        const send = muxer.send.bind(muxer);
        muxer._newStream = (...args) => shorten(withRareUpdates(newStream(...args), clock), send);
        return muxer as unknown as StreamMuxer;
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

/** To be called for any byte, which is a sign of life: an answer may have to wait behind much else, on a slow line or in a relay. */
function watchSilence(connection: MessageStream, clock: Clock): () => void {
  let silentLooks = -1;
  const timer = clock.after(LOOK_MS, () => look(), { background: true });
  const look = (): void => {
    silentLooks += 1;
    if (silentLooks < SILENT_LOOKS) timer.restart();
    else connection.abort(new XcoreError('UNREACHABLE', 'nothing came on the connection any more'));
  };
  connection.addEventListener('close', () => timer.cancel());
  return () => {
    silentLooks = -1;
  };
}
