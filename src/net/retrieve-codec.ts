// The request for leaves and its answer, byte for byte as protobuf has them, without an object for each message inside: they cost
// more than what is asked for. Whatever is not in the usual shape is for the generated code.

import { toBinary } from '@bufbuild/protobuf';
import { SignedSchema } from './proto/wire_pb.ts';
import type { Signed } from './proto/wire_pb.ts';

// Field numbers and wire types of wire.proto: HostRequest.retrieve, HostResponse.retrieved, and what they hold.
const RETRIEVE = 0x12;
const ORDER = 0x0a;
const FIRST_LEAF = 0x10;
const LEAF_COUNT = 0x18;
const BODY = 0x0a;
const SIGNATURE = 0x12;
const RETRIEVED = 0x22;
const DATA_BYTES = 0x08;
const PROOF = 0x12;

/** Values up to this one take four bytes at most. */
const MAX_VALUE = 0x0fff_ffff;

/** Orders serve for many reads. */
const encoded = new WeakMap<Signed, Uint8Array>();

/** A HostRequest for leaves; each value at most 268,435,455. */
export function encodeRetrieve(order: Signed, firstLeaf: number, leafCount: number): Uint8Array {
  let signed = encoded.get(order);
  if (signed === undefined) encoded.set(order, (signed = toBinary(SignedSchema, order)));
  const rest = sizeOfField(firstLeaf) + sizeOfField(leafCount);
  const length = 1 + sizeOf(signed.length) + signed.length + rest;
  const target = Buffer.allocUnsafe(1 + sizeOf(length) + length);
  let at = putValue(target, 0, RETRIEVE, length);
  at = putBytes(target, at, ORDER, signed);
  if (firstLeaf > 0) at = putValue(target, at, FIRST_LEAF, firstLeaf);
  if (leafCount > 0) putValue(target, at, LEAF_COUNT, leafCount);
  return target;
}

/** What encodeRetrieve() made, as views of the frame; null for any other message. */
export function decodeRetrieve(
  frame: Uint8Array,
): { readonly order: Signed; readonly firstLeaf: number; readonly leafCount: number } | null {
  const reader = new FieldReader(frame);
  if (!reader.enter(RETRIEVE) || !reader.enterWithin(ORDER)) return null;
  const end = reader.end;
  const body = reader.bytes(BODY);
  const signature = reader.bytes(SIGNATURE);
  if (body === null || signature === null || reader.at !== end) return null;
  reader.end = frame.length;
  const firstLeaf = reader.value(FIRST_LEAF);
  const leafCount = reader.value(LEAF_COUNT);
  return reader.isDone ? { order: { $typeName: 'xcore.wire.Signed', body, signature }, firstLeaf, leafCount } : null;
}

/** A HostResponse with `dataBytes` bytes behind it, at most 268,435,455. */
export function encodeRetrieved(dataBytes: number, proof: readonly Uint8Array[]): Uint8Array {
  let length = sizeOfField(dataBytes);
  for (const hash of proof) length += 1 + sizeOf(hash.length) + hash.length;
  const target = Buffer.allocUnsafe(1 + sizeOf(length) + length);
  let at = putValue(target, 0, RETRIEVED, length);
  if (dataBytes > 0) at = putValue(target, at, DATA_BYTES, dataBytes);
  for (const hash of proof) at = putBytes(target, at, PROOF, hash);
  return target;
}

/** What encodeRetrieved() made, the proof as views of the frame; null for any other message. */
export function decodeRetrieved(
  frame: Uint8Array,
): { readonly dataBytes: number; readonly proof: Uint8Array[] } | null {
  const reader = new FieldReader(frame);
  if (!reader.enter(RETRIEVED)) return null;
  const dataBytes = reader.value(DATA_BYTES);
  const proof: Uint8Array[] = [];
  while (!reader.isDone) {
    const hash = reader.bytes(PROOF);
    if (hash === null) return null;
    proof.push(hash);
  }
  return { dataBytes, proof };
}

/** Reads fields in the order in which they are expected. */
class FieldReader {
  readonly #frame: Uint8Array;
  at = 0;
  end: number;
  #isBroken = false;

  constructor(frame: Uint8Array) {
    this.#frame = frame;
    this.end = frame.length;
  }

  /** Whether all was read and nothing was in the way. */
  get isDone(): boolean {
    return !this.#isBroken && this.at === this.end;
  }

  /** Goes into a message that fills all that is left. */
  enter(tag: number): boolean {
    return this.enterWithin(tag) && this.end === this.#frame.length;
  }

  /** Goes into a message, whose end is that of the reader from now on. */
  enterWithin(tag: number): boolean {
    if (this.#frame[this.at] !== tag) return false;
    this.at += 1;
    const length = this.#number();
    if (length < 0 || this.at + length > this.end) return false;
    this.end = this.at + length;
    return true;
  }

  /** A field of bytes; null where the next field is another one. */
  bytes(tag: number): Uint8Array | null {
    if (this.at >= this.end || this.#frame[this.at] !== tag) return null;
    this.at += 1;
    const length = this.#number();
    if (length < 0 || this.at + length > this.end) return null;
    this.at += length;
    return this.#frame.subarray(this.at - length, this.at);
  }

  /** A number; 0, its default, where the next field is another one. */
  value(tag: number): number {
    if (this.at >= this.end || this.#frame[this.at] !== tag) return 0;
    this.at += 1;
    const value = this.#number();
    // a default that is written down all the same is not the usual shape
    if (value <= 0) this.#isBroken = true;
    return value;
  }

  /** -1 for one of more than four bytes, or beyond the end. */
  #number(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#frame[this.at];
      if (byte === undefined || this.at >= this.end) return -1;
      this.at += 1;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return -1;
  }
}

function sizeOf(value: number): number {
  if (!(value >= 0 && value <= MAX_VALUE)) throw new RangeError(`${value} in a message`);
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : 4;
}

/** Of a field with a number, which is absent when it is 0. */
function sizeOfField(value: number): number {
  return value === 0 ? 0 : 1 + sizeOf(value);
}

function putValue(target: Buffer, from: number, tag: number, value: number): number {
  let at = from;
  target[at++] = tag;
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) target[at++] = (rest & 0x7f) | 0x80;
  target[at++] = rest;
  return at;
}

function putBytes(target: Buffer, from: number, tag: number, bytes: Uint8Array): number {
  const at = putValue(target, from, tag, bytes.length);
  target.set(bytes, at);
  return at + bytes.length;
}
