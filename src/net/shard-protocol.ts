// /xcore/shard/1 as both ends frame it: one request at a time on a stream, raw bytes after it or after
// its answer. Knows no disk and no order's content; a host implements ShardHandlers.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { freeBuffer } from '../lib/free-buffer.ts';
import { failureOf, toNetworkError } from './failure.ts';
import { FrameStream } from './frames.ts';
import { StallGuard } from './stall-guard.ts';
import type { PeerName } from './network.ts';
import type { ByteStream } from './node.ts';
import { MAX_SHARD_BYTES, SHARD_FRAME_BYTES } from './protocols.ts';
import { HostRequestSchema, HostResponseSchema } from './proto/wire_pb.ts';
import type { HostRequest, Signed } from './proto/wire_pb.ts';
import type { InternalErrorListener } from './rpc.ts';

/** A stream without a request for so long is ended by the host. */
export const IDLE_STREAM_MS = 5 * 60_000;
/** A transfer in which nothing moves for so long is ended. */
export const STALL_TIMEOUT_MS = 120_000;

/** The party that asks, and the signal that ends with its stream. */
export interface TransferContext {
  readonly remotePeer: PeerName;
  readonly signal: AbortSignal;
}

/** Where a mirror is copied from, as the bridge says, and how many hashed keys it would like. */
export interface CopySource {
  readonly order: Signed | undefined;
  readonly addresses: readonly string[];
  readonly keysWanted: number;
}

/** What a host does with a transfer; errors travel to the client as in rpc.ts. */
export interface ShardHandlers {
  /**
   * Checks the order, then calls `receive(sizeBytes)` once and consumes all of it: exactly so many bytes, or it
   * throws; a part is no longer there when the next one is asked for. A host that has the shard already does not call it. Returns the receipt.
   */
  store(
    order: Signed | undefined,
    receive: (sizeBytes: number) => AsyncIterable<Buffer>,
    context: TransferContext,
  ): Promise<Signed>;
  /** Leaf count 0 asks for the whole shard and no proof. `data` must have dataBytes bytes. */
  retrieve(
    order: Signed | undefined,
    firstLeaf: number,
    leafCount: number,
    context: TransferContext,
  ): Promise<{ dataBytes: number; proof: Uint8Array[]; data: Iterable<Uint8Array> | AsyncIterable<Uint8Array> }>;
  /** Fetches a mirror from another host, verifies and keeps it. Returns the receipt, and hashed keys if some are wanted. */
  copy(
    order: Signed | undefined,
    source: CopySource,
    context: TransferContext,
  ): Promise<{ receipt: Signed; keys?: Signed | undefined }>;
  /** The answer to a challenge. */
  prove(order: Signed | undefined, challenge: Uint8Array, context: TransferContext): Promise<Uint8Array>;
  /** The order on which a shard was deleted here, if one is remembered. */
  findDeletion(shardId: Uint8Array, context: TransferContext): Promise<Signed | undefined>;
  /** Ids of stored shards after `after`, ascending; `last` when none follow. */
  list(after: Uint8Array, limit: number, context: TransferContext): Promise<{ shardIds: Uint8Array[]; last: boolean }>;
}

/** Serves one inbound stream until it ends; never rejects. */
export async function serveShardStream(
  stream: ByteStream,
  remotePeer: PeerName,
  handlers: ShardHandlers,
  onInternalError: InternalErrorListener = () => {},
  clock?: Clock,
): Promise<void> {
  const frames = new FrameStream(stream, SHARD_FRAME_BYTES, clock);
  const context: TransferContext = { remotePeer, signal: frames.signal };
  const stall = new StallGuard(frames);
  const moved = (): void => stall.moved();
  try {
    let usable = true;
    while (usable) {
      stall.watch(IDLE_STREAM_MS);
      const frame = await frames.read();
      if (!frame) break;
      stall.watch(STALL_TIMEOUT_MS);
      const { body } = decodeRequest(frame);
      if (body.case === 'store') {
        usable = await serveStore(frames, body.value.order, handlers, context, moved, onInternalError);
      } else if (body.case === 'retrieve') {
        const { order, firstLeaf, leafCount } = body.value;
        usable = await serveRetrieve(
          frames,
          () => handlers.retrieve(order, firstLeaf, leafCount, context),
          moved,
          onInternalError,
        );
      } else if (body.case === 'copy') {
        const { order, source, addresses, keysWanted } = body.value;
        await answer(frames, 'copy', onInternalError, async () => {
          const copied = await handlers.copy(order, { order: source, addresses, keysWanted }, context);
          return { case: 'stored', value: copied };
        });
      } else if (body.case === 'prove') {
        const { order, challenge } = body.value;
        await answer(frames, 'prove', onInternalError, async () => {
          return { case: 'proved', value: { answer: await handlers.prove(order, challenge, context) } };
        });
      } else if (body.case === 'findDeletion') {
        const { shardId } = body.value;
        await answer(frames, 'findDeletion', onInternalError, async () => {
          return { case: 'deletion', value: { order: await handlers.findDeletion(shardId, context) } };
        });
      } else if (body.case === 'listShards') {
        const { after, limit } = body.value;
        await answer(frames, 'listShards', onInternalError, async () => {
          return { case: 'shardPage', value: await handlers.list(after, limit, context) };
        });
      } else {
        throw new XcoreError('PROTOCOL', 'an unknown request');
      }
    }
    await frames.close();
  } catch (error) {
    frames.abort(toNetworkError(error));
  } finally {
    stall.release();
  }
}

/** Whether the stream can carry another request. */
async function serveStore(
  frames: FrameStream,
  order: Signed | undefined,
  handlers: ShardHandlers,
  context: TransferContext,
  moved: () => void,
  onInternalError: InternalErrorListener,
): Promise<boolean> {
  let asked = false;
  let missingBytes = 0;
  const receive = async function* (sizeBytes: number): AsyncGenerator<Buffer> {
    if (asked) throw new TypeError('receive() is called once');
    asked = true;
    missingBytes = sizeBytes;
    await respond(frames, { case: 'ready', value: {} });
    for await (const part of receiveBytes(frames, sizeBytes, moved)) {
      missingBytes -= part.length;
      yield part;
    }
  };
  try {
    const receipt = await handlers.store(order, receive, context);
    if (missingBytes > 0) throw new TypeError('a store handler must consume all bytes or throw');
    if (!asked) await respond(frames, { case: 'ready', value: { alreadyHeld: true } });
    await respond(frames, { case: 'stored', value: { receipt } });
    return true;
  } catch (error) {
    reportInternal(error, 'store', onInternalError);
    await respond(frames, { case: 'failure', value: failureOf(error) });
    // The rest of the bytes is on its way and cannot be told from the next request.
    return missingBytes === 0;
  }
}

async function serveRetrieve(
  frames: FrameStream,
  retrieve: () => ReturnType<ShardHandlers['retrieve']>,
  moved: () => void,
  onInternalError: InternalErrorListener,
): Promise<boolean> {
  let answer: Awaited<ReturnType<ShardHandlers['retrieve']>>;
  try {
    answer = await retrieve();
  } catch (error) {
    reportInternal(error, 'retrieve', onInternalError);
    await respond(frames, { case: 'failure', value: failureOf(error) });
    return true;
  }
  const { dataBytes, proof, data } = answer;
  const head = encodeResponse({ case: 'retrieved', value: { dataBytes, proof } });
  const [all, ...more] = Array.isArray(data) ? (data as readonly Uint8Array[]) : [];
  if (all && more.length === 0 && all.length === dataBytes && dataBytes <= SHARD_FRAME_BYTES) {
    await frames.write(head, all);
    moved();
    return true;
  }
  await frames.write(head);
  let sentBytes = 0;
  try {
    for await (const part of data) {
      sentBytes += part.length;
      if (sentBytes > dataBytes) break;
      await sendBytes(frames, part, moved);
    }
  } catch (error) {
    reportInternal(error, 'retrieve', onInternalError);
    throw error;
  }
  if (sentBytes !== dataBytes) throw new XcoreError('PROTOCOL', 'the shard has another size than announced');
  return true;
}

/** Sends raw bytes in frames; `moved` is called as they leave. */
export async function sendBytes(frames: FrameStream, data: Uint8Array, moved: () => void): Promise<void> {
  for (let at = 0; at < data.length; at += SHARD_FRAME_BYTES) {
    await frames.write(data.subarray(at, at + SHARD_FRAME_BYTES));
    moved();
  }
}

/**
 * Reads exactly so many raw bytes; each part is the reader's until it asks for the next. PROTOCOL for more bytes,
 * UNREACHABLE for fewer; `moved` is called as they come.
 */
export async function* receiveBytes(frames: FrameStream, sizeBytes: number, moved: () => void): AsyncGenerator<Buffer> {
  if (sizeBytes > MAX_SHARD_BYTES) throw new XcoreError('TOO_LARGE', 'no shard is that large');
  const buffer = Buffer.allocUnsafeSlow(Math.min(sizeBytes, SHARD_FRAME_BYTES));
  try {
    for (let missing = sizeBytes; missing > 0;) {
      const length = await receivePart(frames, buffer.subarray(0, missing), moved);
      missing -= length;
      yield buffer.subarray(0, length);
    }
  } finally {
    freeBuffer(buffer);
  }
}

/** Reads one frame of raw bytes into `target` and returns its length. Errors as receiveBytes(). */
export async function receivePart(frames: FrameStream, target: Buffer, moved: () => void): Promise<number> {
  const length = await frames.readInto(target);
  if (length === null) throw new XcoreError('UNREACHABLE', 'the transfer ended early');
  moved();
  return length;
}

/** Answers a request that no raw bytes belong to. */
async function answer(
  frames: FrameStream,
  request: string,
  onInternalError: InternalErrorListener,
  run: () => Promise<ResponseInit>,
): Promise<void> {
  let body: ResponseInit;
  try {
    body = await run();
  } catch (error) {
    reportInternal(error, request, onInternalError);
    body = { case: 'failure', value: failureOf(error) };
  }
  await respond(frames, body);
}

type ResponseInit = NonNullable<MessageInitShape<typeof HostResponseSchema>['body']>;

async function respond(frames: FrameStream, body: ResponseInit): Promise<void> {
  await frames.write(encodeResponse(body));
}

function encodeResponse(body: ResponseInit): Uint8Array {
  return toBinary(HostResponseSchema, create(HostResponseSchema, { body }));
}

function decodeRequest(frame: Buffer): HostRequest {
  try {
    return fromBinary(HostRequestSchema, frame);
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed request', { cause: error });
  }
}

function reportInternal(error: unknown, request: string, listener: InternalErrorListener): void {
  if (!(error instanceof XcoreError)) listener(asError(error), request);
}
