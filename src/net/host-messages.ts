// What is said to a host and what it answers, on one stream. Knows no hosts.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { XcoreError } from '../lib/errors.ts';
import { errorOf } from './failure.ts';
import type { FrameStream } from './frames.ts';
import { HostRequestSchema, HostResponseSchema } from './proto/wire_pb.ts';
import type { HostResponse } from './proto/wire_pb.ts';

/** A host's Failure between transfers: its stream can be used again. */
export class HostFailure extends XcoreError {}

type RequestInit = NonNullable<MessageInitShape<typeof HostRequestSchema>['body']>;

/** Sends a request. */
export async function send(frames: FrameStream, body: RequestInit): Promise<void> {
  await frames.write(toBinary(HostRequestSchema, create(HostRequestSchema, { body })));
}

type ResponseBody = Exclude<HostResponse['body'], { case: undefined }>;
type ResponseValue<C extends ResponseBody['case']> = Extract<ResponseBody, { case: C }>['value'];

/** The answer to a request. HostFailure, or the Failure as it is where the stream is of no more use afterwards; UNREACHABLE, PROTOCOL. */
export async function receive<C extends ResponseBody['case']>(
  frames: FrameStream,
  expected: C,
  reusable = expected !== 'stored',
): Promise<ResponseValue<C>> {
  const frame = await frames.read();
  if (!frame) throw new XcoreError('UNREACHABLE', 'the host ended the stream');
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
