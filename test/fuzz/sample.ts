// Valid messages of any kind, made up from their descriptions, so that no message is forgotten.

import { create, ScalarType, toBinary } from '@bufbuild/protobuf';
import type { DescField, DescMessage } from '@bufbuild/protobuf';
import type { Random } from '../support/random.ts';

const MAX_DEPTH = 4;

/** An encoded message with nearly all of its fields set. */
export function sampleOf(schema: DescMessage, random: Random): Buffer {
  return Buffer.from(toBinary(schema, create(schema, fieldsFor(schema, random, 0) as never)));
}

function fieldsFor(schema: DescMessage, random: Random, depth: number): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const field of schema.fields) {
    if (field.oneof || random.below(8) === 0) continue;
    fields[field.localName] = valueFor(field, random, depth);
  }
  for (const oneof of schema.oneofs) {
    const field = random.pick(oneof.fields);
    fields[oneof.localName] = { case: field.localName, value: valueFor(field, random, depth) };
  }
  return fields;
}

function valueFor(field: DescField, random: Random, depth: number): unknown {
  if (field.fieldKind === 'list') {
    const one = (): unknown =>
      field.listKind === 'message' ? inner(field.message, random, depth) : scalar(field.scalar, random);
    return Array.from({ length: random.below(4) }, one);
  }
  if (field.fieldKind === 'message') return inner(field.message, random, depth);
  if (field.fieldKind === 'scalar') return scalar(field.scalar, random);
  throw new TypeError(`no sample for a ${field.fieldKind}`);
}

function inner(schema: DescMessage, random: Random, depth: number): Record<string, unknown> {
  return depth < MAX_DEPTH ? fieldsFor(schema, random, depth + 1) : {};
}

function scalar(type: ScalarType | undefined, random: Random): unknown {
  switch (type) {
    case ScalarType.BYTES:
      return random.bytes(random.pick([0, 1, 16, 32, 32, 64]));
    case ScalarType.STRING:
      return random.pick(['', 'store', '12D3KooWHFd1gyNYFqxt7ke9FY2VoVVWY2XSPhvL9vg2pB6wQGfa', '/ip4/10.0.0.1/tcp/1']);
    case ScalarType.BOOL:
      return random.below(2) === 1;
    case ScalarType.DOUBLE:
      return random.pick([0, 0.5, 1e300, -1]);
    case ScalarType.UINT64:
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return BigInt(random.pick([0, 1, 300, 2 ** 40]));
    default:
      return random.pick([0, 1, 300, 2_097_152]);
  }
}
