// Inputs for decoders: bytes that were valid, changed in a few ways, and bytes that never were. Everything follows
// from a seed and a number.

import { Random } from '../support/random.ts';

/** Numbers at which something tends to give way, as varints: 0, 2^7, 2^31, 2^32 − 1, 2^53, 2^64 − 1, and one of eleven bytes. */
const VARINTS = [
  ...['00', '8001', '8080808008', 'ffffffff0f', '80808080808080808001', 'ffffffffffffffffff01'],
  ...['ffffffffffffffffffff01', '8080808000'],
].map((hex) => Buffer.from(hex, 'hex'));
const MAX_INPUT_BYTES = 70_000;

/** One field of an encoded message: where its tag begins, where its value, and where it ends. */
interface Field {
  readonly from: number;
  readonly value: number;
  readonly to: number;
  readonly wireType: number;
}

/** The input of that number: of a seed's inputs, the same one each time. */
export function inputOf(seed: string, number: number, samples: readonly Buffer[]): Buffer {
  const random = new Random(`${seed}/${number}`);
  if (random.below(16) === 0) return random.bytes(random.pick([0, 1, 2, 5, 33, 200, 3_000]));
  let bytes: Buffer = Buffer.from(random.pick(samples));
  for (let changes = random.pick([1, 1, 1, 2, 4]); changes > 0; changes -= 1) bytes = changed(random, bytes, samples);
  return bytes.subarray(0, MAX_INPUT_BYTES);
}

function changed(random: Random, bytes: Buffer, samples: readonly Buffer[]): Buffer {
  const at = random.below(bytes.length + 1);
  const length = random.pick([1, 2, 4, 8, 32, 64]);
  switch (random.below(14)) {
    case 0: // flipped bits
      for (let flips = random.between(1, 9); flips > 0 && bytes.length > 0; flips -= 1)
        bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      return bytes;
    case 1: // cut short
      return bytes.subarray(0, at);
    case 2: // cut out
      return splice(bytes, at, at + length, Buffer.alloc(0));
    case 3: // said twice
      return splice(bytes, at, at, bytes.subarray(at, at + length));
    case 4: // the beginning of one, the end of another
      return Buffer.concat([bytes.subarray(0, at), tailOf(random, random.pick(samples))]);
    case 5: // extreme bytes
      return splice(bytes, at, at + length, Buffer.alloc(length, random.pick([0x00, 0x7f, 0x80, 0xff])));
    case 6: // noise
      return splice(bytes, at, at + length, random.bytes(length));
    case 7: // a huge number anywhere
      return splice(bytes, at, at + random.below(3), random.pick(VARINTS));
    case 8: // much of the same
      return splice(
        bytes,
        at,
        at,
        Buffer.alloc(random.pick([100, 5_000, 40_000]), Buffer.concat([bytes.subarray(at, at + length), Buffer.of(0)])),
      );
    default:
      return changedField(random, bytes, samples);
  }
}

/** Changes one field of what may be an encoded message, or of a message inside it. */
function changedField(random: Random, bytes: Buffer, samples: readonly Buffer[], depth = 0): Buffer {
  const fields = fieldsOf(bytes);
  if (fields.length === 0) return splice(bytes, random.below(bytes.length + 1), bytes.length, random.bytes(3));
  const { from, value, to, wireType } = random.pick(fields);
  const tag = bytes.subarray(from, from + 1);
  const content = bytes.subarray(value, to);
  if (wireType === 2 && depth < 4 && content.length > 1 && random.below(2) === 0) {
    const inner = changedField(random, Buffer.from(content), samples, depth + 1);
    return splice(bytes, from, to, Buffer.concat([tag, varint(inner.length), inner]));
  }
  switch (random.below(8)) {
    case 0: // left out
      return splice(bytes, from, to, Buffer.alloc(0));
    case 1: // repeated, at times often
      return splice(bytes, to, to, Buffer.concat(repeated(bytes.subarray(from, to), random.pick([1, 2, 70, 300]))));
    case 2: // another type of value
      return splice(bytes, from, from + 1, Buffer.of((tag[0]! & 0xf8) | random.below(8)));
    case 3: // another field, or one that nobody knows
      return splice(
        bytes,
        from,
        from + 1,
        random.pick([Buffer.of(tag[0]! ^ (8 << random.below(4))), Buffer.from('faff01', 'hex')]),
      );
    case 4: // a length that lies
      if (wireType !== 2) return splice(bytes, value, to, random.pick(VARINTS));
      return splice(
        bytes,
        from + 1,
        value,
        random.pick([...VARINTS, varint(content.length + 1), varint(content.length >> 1)]),
      );
    case 5: // an empty value
      return splice(bytes, from, to, wireType === 2 ? Buffer.concat([tag, Buffer.of(0)]) : Buffer.alloc(0));
    case 6: // a value that is too long, or of another length
      if (wireType !== 2) return splice(bytes, value, to, random.pick(VARINTS));
      return splice(
        bytes,
        from,
        to,
        delimited(tag, random.bytes(random.pick([1, 15, 16, 31, 32, 33, 64, 1_000, 30_000]))),
      );
    default: // a field out of another input
      return splice(bytes, to, to, tailOf(random, random.pick(samples)));
  }
}

/** The fields of an encoded message, as far as it is one. */
function fieldsOf(bytes: Buffer): Field[] {
  const fields: Field[] = [];
  for (let at = 0; at < bytes.length && fields.length < 64;) {
    const from = at;
    const wireType = bytes[at]! & 7;
    if (bytes[at]! >= 0x80) return fields;
    at += 1;
    let length = 0;
    let value = at;
    if (wireType === 0 || wireType === 2) {
      let number = 0;
      for (let shift = 0; at < bytes.length && shift < 28; shift += 7) {
        number |= (bytes[at]! & 0x7f) << shift;
        at += 1;
        if (bytes[at - 1]! < 0x80) break;
      }
      if (wireType === 2) [length, value] = [number, at];
    } else if (wireType === 1 || wireType === 5) length = wireType === 1 ? 8 : 4;
    else return fields;
    at += length;
    if (at > bytes.length) return fields;
    fields.push({ from, value, to: at, wireType });
  }
  return fields;
}

function splice(bytes: Buffer, from: number, to: number, inserted: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, from), inserted, bytes.subarray(Math.max(from, to))]);
}

function tailOf(random: Random, bytes: Buffer): Buffer {
  return bytes.subarray(random.below(bytes.length + 1));
}

function repeated(bytes: Buffer, times: number): Buffer[] {
  return Array.from({ length: times }, () => bytes);
}

function delimited(tag: Buffer, content: Buffer): Buffer {
  return Buffer.concat([tag, varint(content.length), content]);
}

/** A number up to 2^31 as a varint. */
export function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.of(...bytes, rest);
}
