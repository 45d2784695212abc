// Stocks of hashed keys as they are handed over: made, signed and checked. What a commitment is worth only its use shows.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { CHALLENGE_BYTES, mintHashedKeys } from '../crypto/hashed-key.ts';
import { sign, verify } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { peerNameOf, publicKeyOfPeer } from './peer-name.ts';
import { KeyStockSchema, SignedSchema } from './proto/wire_pb.ts';
import type { KeyStock, Signed } from './proto/wire_pb.ts';

/** Most hashed keys of one stock. */
export const MAX_STOCK_KEYS = 8;

const LABEL = 'xcore/keys/1';
const HASH_BYTES = 32;

/** Mints and signs a stock with the minter's seed, 32 bytes; `data` is the verified whole shard. */
export function mintStock(
  seed: Uint8Array,
  shardId: Uint8Array,
  data: Uint8Array,
  count: number,
  random?: RandomBytes,
): Signed {
  const keys = mintHashedKeys(data, Math.min(MAX_STOCK_KEYS, count), random);
  const stock = create(KeyStockSchema, { shardId, sizeBytes: data.length, minter: peerNameOf(seed), keys });
  const body = toBinary(KeyStockSchema, stock);
  return create(SignedSchema, { body, signature: sign(seed, LABEL, body) });
}

/** The stock inside, if the minter that it names signed it; REFUSED for a wrong signature, PROTOCOL for a malformed stock. */
export function verifyStock(signed: Signed | undefined): KeyStock {
  let stock: KeyStock;
  try {
    if (!signed) throw new XcoreError('PROTOCOL', 'the stock is missing');
    stock = fromBinary(KeyStockSchema, signed.body);
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed stock', { cause: error });
  }
  const { keys, shardId, minter } = stock;
  const wellFormed =
    shardId.length === HASH_BYTES &&
    keys.length >= 1 &&
    keys.length <= MAX_STOCK_KEYS &&
    keys.every(({ challenge, commitment }) => challenge.length === CHALLENGE_BYTES && commitment.length === HASH_BYTES);
  if (!wellFormed) throw new XcoreError('PROTOCOL', 'malformed stock');
  if (!verify(publicKeyOfPeer(minter), LABEL, signed.body, signed.signature)) {
    throw new XcoreError('REFUSED', 'the stock is not signed by the party that it names');
  }
  return stock;
}
