// The short way through libp2p's streams, where nothing waits: bytes go from one layer to the next as they are, without
// an event, a list or a copy of one for each. Where anything waits or is closed, the ordinary way is taken.

import { Uint8ArrayList } from 'uint8arraylist';

/** Takes bytes as they come. */
export type TakeBytes = (bytes: Uint8Array) => void;

/** A stream or a connection whose bytes need not come as events. */
export interface Divertible {
  /** From now on `take` gets what comes, unless something waits before it: that comes as 'message' events still. */
  divert(take: TakeBytes): void;
}

/** What is used of a libp2p stream beyond its interface. */
export interface ShortenedStream extends Partial<Divertible> {
  readonly streamId: number;
  readonly state: number;
  readonly readStatus: string;
  readonly remoteWriteStatus: string;
  readonly writeStatus: string;
  readonly readBufferLength: number;
  readonly writeBufferLength: number;
  readonly sendingData: boolean;
  writableNeedsDrain: boolean;
  sendWindowCapacity: number;
  send(data: Uint8Array | Uint8ArrayList): boolean;
  onData(data: Uint8Array | Uint8ArrayList): void;
  abort(error: Error): void;
}

/** StreamState of @libp2p/yamux: neither side waits for a flag of ours. */
export const SETTLED_STATES: ReadonlySet<number> = new Set([1, 3]);
const HEADER_BYTES = 12;
const STREAM_OFFSET = 4;
const LENGTH_OFFSET = 8;
/** Frames up to this length are copied behind their header: to write two buffers costs more. */
const COPIED_BYTES = 4 * 1024;

/** Whether bytes that come now are the next ones to be read. */
export function isNext({
  readBufferLength,
  readStatus,
  remoteWriteStatus,
}: Pick<ShortenedStream, 'readBufferLength' | 'readStatus' | 'remoteWriteStatus'>): boolean {
  return readBufferLength === 0 && readStatus === 'readable' && remoteWriteStatus === 'writable';
}

/** Whether bytes that are sent now can leave at once. */
export function isIdle({
  writeBufferLength,
  writeStatus,
  writableNeedsDrain,
}: Pick<ShortenedStream, 'writeBufferLength' | 'writeStatus' | 'writableNeedsDrain'>): boolean {
  return writeBufferLength === 0 && writeStatus === 'writable' && !writableNeedsDrain;
}

/** Gives a stream of @libp2p/yamux the short ways; `sendFrame` is its muxer's send(). */
export function shorten<T extends ShortenedStream>(
  stream: T,
  sendFrame: (frame: Uint8Array | Uint8ArrayList) => boolean,
): T {
  const send = stream.send.bind(stream);
  const onData = stream.onData.bind(stream);
  let taking: TakeBytes | null = null;
  stream.divert = (take) => {
    taking = take;
  };
  stream.onData = (data) => {
    if (taking !== null && data instanceof Uint8Array && isNext(stream)) taking(data);
    else onData(data);
  };
  stream.send = (data) => {
    const { byteLength } = data;
    const fits = byteLength > 0 && byteLength <= stream.sendWindowCapacity;
    if (!fits || !SETTLED_STATES.has(stream.state) || stream.sendingData || !isIdle(stream)) return send(data);
    stream.sendWindowCapacity -= byteLength;
    try {
      const canSendMore = sendFrame(frameOf(stream.streamId, data));
      if (!canSendMore) stream.writableNeedsDrain = true;
      return canSendMore;
    } catch (error) {
      stream.abort(error as Error);
      throw error;
    }
  };
  return stream;
}

/** A data frame of yamux without flags. */
function frameOf(streamId: number, data: Uint8Array | Uint8ArrayList): Uint8Array | Uint8ArrayList {
  const isCopied = data instanceof Uint8Array && data.length <= COPIED_BYTES;
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + (isCopied ? data.length : 0));
  bytes.writeUInt32BE(0, 0);
  bytes.writeUInt32BE(streamId, STREAM_OFFSET);
  bytes.writeUInt32BE(data.byteLength, LENGTH_OFFSET);
  if (!isCopied) return new Uint8ArrayList(bytes, data);
  bytes.set(data, HEADER_BYTES);
  return bytes;
}
