// What is said to a host and what it answers, on one stream. Knows no hosts.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { XcoreError } from '../lib/errors.ts';
import { errorOf } from './failure.ts';
import type { FrameStream } from './frames.ts';
import { HostRequestSchema, HostResponseSchema } from './proto/wire_pb.ts';
import type { HostResponse, Signed } from './proto/wire_pb.ts';
import { decodeRetrieved, encodeRetrieve } from './retrieve-codec.ts';

/** A host's Failure between transfers: its stream can be used again. */
export class HostFailure extends XcoreError {}

type RequestInit = NonNullable<MessageInitShape<typeof HostRequestSchema>['body']>;

/** Sends a request. */
export async function send(frames: FrameStream, body: RequestInit): Promise<void> {
  await frames.write(toBinary(HostRequestSchema, create(HostRequestSchema, { body })));
}

type ResponseBody = Exclude<HostResponse['body'], { case: undefined }>;
type ResponseValue<C extends ResponseBody['case']> = Extract<ResponseBody, { case: C }>['value'];

/** Asks for leaves of a shard, or with leafCount 0 for the whole of it. */
export async function sendRetrieve(
  frames: FrameStream,
  order: Signed | undefined,
  range: { readonly firstLeaf: number; readonly leafCount: number },
): Promise<void> {
  const { firstLeaf, leafCount } = range;
  if (order) await frames.write(encodeRetrieve(order, firstLeaf, leafCount));
  else await send(frames, { case: 'retrieve', value: { firstLeaf, leafCount } });
}

/** The answer to a request. HostFailure, or the Failure as it is where the stream is of no more use afterwards; UNREACHABLE, PROTOCOL. */
export async function receive<C extends ResponseBody['case']>(
  frames: FrameStream,
  expected: C,
  reusable = expected !== 'stored',
): Promise<ResponseValue<C>> {
  return answerIn(await nextFrame(frames), expected, reusable);
}

/** As receive(), of the answer to a request for bytes of a shard, which follow it. */
export async function receiveRetrieved(
  frames: FrameStream,
): Promise<{ readonly dataBytes: number; readonly proof: Uint8Array[] }> {
  const frame = await nextFrame(frames);
  return decodeRetrieved(frame) ?? answerIn(frame, 'retrieved');
}

async function nextFrame(frames: FrameStream): Promise<Buffer> {
  const frame = await frames.read();
  if (!frame) throw new XcoreError('UNREACHABLE', 'the host ended the stream');
  return frame;
}

function answerIn<C extends ResponseBody['case']>(frame: Buffer, expected: C, reusable = true): ResponseValue<C> {
  let body: HostResponse['body'];
  try {
    body = fromBinary(HostResponseSchema, frame).body;
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed answer', { cause: error });
  }
  if (body.case === 'failure') {
    const { code, message } = errorOf(body.value);
    throw reusable ? new HostFailure(code, message) : new XcoreError(code, message);
  }
  if (body.case !== expected) throw new XcoreError('PROTOCOL', 'an answer out of turn');
  return body.value as ResponseValue<C>;
}
