// Reads the protobuf bytes of a change set field by field, as changeSetBytes() writes them: every commit is
// read once more before it is published, and the generic decoder costs several times as much.

import { ChangeSetSchema } from './proto/tree_pb.ts';
import { unpack } from './record-codec.ts';

/** One change of a change set: the record's key, and its bytes unless it is a deletion. */
export interface ReadChange {
  readonly key: string;
  readonly value: Uint8Array | null;
}

const CHANGES = 0x0a;
const LINEAGE = 0x12;
const LAST_COMMIT = 0x18;
const KEY = 0x0a;
const VALUE = 0x12;
/** Four bytes of a varint are below 2^28, more than any length here. */
const MAX_LENGTH_BYTES = 4;

let position = 0;

/** A length; NaN when there is none, or one that no change set has. */
function takeLength(bytes: Buffer): number {
  let value = 0;
  for (let n = 0; n < MAX_LENGTH_BYTES; n++) {
    const byte = bytes[position++];
    if (byte === undefined) return NaN;
    value |= (byte & 127) << (7 * n);
    if (byte < 128) return value;
  }
  return NaN;
}

function takeChange(bytes: Buffer, end: number): ReadChange | null {
  if (bytes[position++] !== KEY) return null;
  const keyEnd = takeLength(bytes) + position;
  if (!(keyEnd <= end)) return null;
  const key = bytes.toString('latin1', position, keyEnd);
  position = keyEnd;
  if (position === end) return { key, value: null };
  if (bytes[position++] !== VALUE) return null;
  const valueEnd = takeLength(bytes) + position;
  if (valueEnd !== end) return null;
  const value = bytes.subarray(position, end);
  position = end;
  return { key, value };
}

/** Changes that are written in the usual way; null for others, which may be right as well. */
function readUsual(bytes: Buffer): ReadChange[] | null {
  const changes: ReadChange[] = [];
  for (position = 0; bytes[position] === CHANGES;) {
    position++;
    const end = takeLength(bytes) + position;
    const change = end <= bytes.length ? takeChange(bytes, end) : null;
    if (change === null) return null;
    changes.push(change);
  }
  if (position === bytes.length) return changes;
  const next = bytes[position];
  return next === LINEAGE || next === LAST_COMMIT ? changes : null;
}

/** The changes of a change set without a checkpoint, in order; values are windows on `bytes`. CORRUPT_RECORD when it is none. */
export function changesOf(bytes: Uint8Array): ReadChange[] {
  const usual = readUsual(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  if (usual !== null) return usual;
  return unpack(ChangeSetSchema, bytes).changes.map(({ key, value }) => ({
    key: Buffer.from(key).toString('latin1'),
    value: value ?? null,
  }));
}
