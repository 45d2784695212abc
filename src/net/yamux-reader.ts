// Takes what comes on a yamux connection apart, and gives the bytes of each frame to their stream as they come: nothing is
// collected, however long a frame is. Knows of frames without bytes only that the muxer handles them.

import { XcoreError } from '../lib/errors.ts';

// https://github.com/hashicorp/yamux/blob/master/spec.md: version, type, flags, stream id, length.
const HEADER_BYTES = 12;
const VERSION = 0;
const DATA = 0;
const SYN = 1;
const FIN = 4;

/** What is used of a stream of @libp2p/yamux. */
export interface YamuxSink {
  readonly streamId: number;
  recvWindowCapacity: number;
  processFlags(flags: number): void;
  onData(bytes: Uint8Array): void;
  sendWindowUpdate(): void;
}

/** What is used of its muxer. */
export interface YamuxSinks {
  readonly streams: readonly YamuxSink[];
  /** Makes a stream that the other side opens. */
  incomingStream(id: number): void;
  /** Takes a frame without bytes. */
  handleFrame(frame: { readonly header: Readonly<Record<'type' | 'flag' | 'streamID' | 'length', number>> }): void;
}

/** Goes from header to header of one connection. */
export class YamuxReader {
  readonly #muxer: YamuxSinks;
  readonly #maxFrameBytes: number;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  /** Of the frame that has begun. */
  #missing = 0;
  #flags = 0;
  #stream: YamuxSink | undefined;
  #isBusy = false;
  /** What came while a stream took what came before. */
  readonly #later: Uint8Array[] = [];

  constructor(muxer: YamuxSinks, maxFrameBytes: number) {
    this.#muxer = muxer;
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Takes the next bytes. PROTOCOL, or what the muxer throws, for what no peer may send; the connection is of no more use then. */
  take(data: Uint8Array | Iterable<Uint8Array>): void {
    const parts = data instanceof Uint8Array ? null : data;
    if (this.#isBusy) {
      for (const part of parts ?? [data as Uint8Array]) this.#later.push(part);
      return;
    }
    this.#isBusy = true;
    try {
      if (parts === null) this.#walk(data as Uint8Array);
      else for (const part of parts) this.#walk(part);
      for (let next = this.#later.shift(); next; next = this.#later.shift()) this.#walk(next);
    } finally {
      this.#isBusy = false;
    }
  }

  #walk(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#missing === 0) {
        at = this.#takeHeader(bytes, at);
        continue;
      }
      const isAll = at === 0 && bytes.length <= this.#missing;
      const part = isAll ? bytes : bytes.subarray(at, at + this.#missing);
      at += part.length;
      this.#missing -= part.length;
      if (this.#stream) {
        this.#stream.recvWindowCapacity -= part.length;
        this.#stream.onData(part);
      }
      if (this.#missing === 0) this.#end();
    }
  }

  /** Where the header ends, or these bytes do. */
  #takeHeader(bytes: Uint8Array, from: number): number {
    let at = from;
    while (at < bytes.length && this.#headerBytes < HEADER_BYTES) this.#header[this.#headerBytes++] = bytes[at++] ?? 0;
    if (this.#headerBytes === HEADER_BYTES) {
      this.#headerBytes = 0;
      this.#begin();
    }
    return at;
  }

  #begin(): void {
    if (this.#header[0] !== VERSION) throw new XcoreError('PROTOCOL', 'another version of yamux');
    const type = this.#header[1] ?? 0;
    const flag = this.#header.readUInt16BE(2);
    const streamID = this.#header.readUInt32BE(4);
    const length = this.#header.readUInt32BE(8);
    if (type !== DATA || streamID === 0) {
      this.#muxer.handleFrame({ header: { type, flag, streamID, length } });
      return;
    }
    if (length > this.#maxFrameBytes) throw new XcoreError('PROTOCOL', `a muxed frame of ${length} bytes`);
    if ((flag & SYN) !== 0) this.#muxer.incomingStream(streamID);
    const stream = this.#muxer.streams.find((other) => other.streamId === streamID);
    stream?.processFlags(flag & ~FIN);
    if (stream && stream.recvWindowCapacity < length) {
      throw new XcoreError('PROTOCOL', 'more bytes than there is room for');
    }
    this.#stream = stream;
    this.#flags = flag;
    this.#missing = length;
    if (length === 0) this.#end();
  }

  #end(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    if ((this.#flags & FIN) !== 0) stream?.processFlags(FIN);
    stream?.sendWindowUpdate();
  }
}
