// Orders and receipts: made, signed and checked. Knows their fields, not who keeps which serial.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { LRUCache } from 'lru-cache';
import { sign, verify } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from './network.ts';
import { publicKeyOfPeer } from './peer-name.ts';
import { OrderSchema, ReceiptSchema, SignedSchema } from './proto/wire_pb.ts';
import type { Order, Receipt, Signed } from './proto/wire_pb.ts';

const ORDER_LABEL = 'xcore/order/1';
const RECEIPT_LABEL = 'xcore/receipt/1';
/** Of reads, whose signature need not be checked again; about 1 KiB each. */
const MAX_KNOWN_ORDERS = 4_096;
const SERIAL_BYTES = 16;
const ID_BYTES = 32;

/** The clocks of two parties may differ by so much, either way. */
export const MAX_CLOCK_SKEW_MS = 2 * 60 * 60_000;

/** What an order permits. */
export type Operation = 'store' | 'retrieve' | 'delete';

/** Signs an order with the bridge's seed, 32 bytes. */
export function signOrder(seed: Uint8Array, order: MessageInitShape<typeof OrderSchema>): Signed {
  const body = toBinary(OrderSchema, create(OrderSchema, order));
  return create(SignedSchema, { body, signature: sign(seed, ORDER_LABEL, body) });
}

/** The order inside, if `bridge` signed it; REFUSED for a wrong signature, PROTOCOL for a malformed order. */
export function verifyOrder(signed: Signed | undefined, bridge: PeerName): Order {
  if (!signed || !verify(publicKeyOfPeer(bridge), ORDER_LABEL, signed.body, signed.signature)) {
    throw new XcoreError('REFUSED', 'the order is not signed by the bridge');
  }
  const order = readOrder(signed);
  if (order.serial.length !== SERIAL_BYTES || order.shardId.length !== ID_BYTES) {
    throw new XcoreError('PROTOCOL', 'malformed order');
  }
  return order;
}

/** Orders whose signature was found to be good: to check it costs more than what the order asks for. */
export class KnownOrders {
  /** By signature. */
  readonly #known = new LRUCache<
    string,
    { readonly body: Uint8Array; readonly bridge: PeerName; readonly order: Order }
  >({
    max: MAX_KNOWN_ORDERS,
  });

  /** As verifyOrder(). */
  verify(signed: Signed | undefined, bridge: PeerName): Order {
    if (!signed) return verifyOrder(signed, bridge);
    const name = Buffer.from(signed.signature).toString('base64');
    const known = this.#known.get(name);
    if (known && known.bridge === bridge && Buffer.compare(known.body, signed.body) === 0) return known.order;
    const order = verifyOrder(signed, bridge);
    this.#known.set(name, { body: Uint8Array.from(signed.body), bridge, order });
    return order;
  }
}

/** The order inside, its signature unchecked: for a client, which only passes it on. PROTOCOL for a malformed one. */
export function readOrder(signed: Signed | undefined): Order {
  try {
    if (signed) return fromBinary(OrderSchema, signed.body);
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed order', { cause: error });
  }
  throw new XcoreError('PROTOCOL', 'the order is missing');
}

/** Throws REFUSED unless a verified order permits this operation to this client on this host now, as far as clocks can be trusted. */
export function checkOrder(
  order: Order,
  use: { operation: Operation; client: PeerName; host: PeerName; nowMs: number },
): void {
  if (order.operation !== use.operation) throw new XcoreError('REFUSED', `the order is not for "${use.operation}"`);
  if (order.client !== use.client) throw new XcoreError('REFUSED', 'the order is for another client');
  if (order.host !== use.host) throw new XcoreError('REFUSED', 'the order is for another host');
  if (order.expiresMs + BigInt(MAX_CLOCK_SKEW_MS) <= BigInt(use.nowMs))
    throw new XcoreError('REFUSED', 'the order has expired');
}

/** Signs a receipt with the host's seed, 32 bytes. */
export function signReceipt(seed: Uint8Array, receipt: MessageInitShape<typeof ReceiptSchema>): Signed {
  const body = toBinary(ReceiptSchema, create(ReceiptSchema, receipt));
  return create(SignedSchema, { body, signature: sign(seed, RECEIPT_LABEL, body) });
}

/** The receipt inside, if the host that it names signed it; REFUSED for a wrong signature, PROTOCOL for a malformed receipt. */
export function verifyReceipt(signed: Signed | undefined): Receipt {
  let receipt: Receipt;
  try {
    if (!signed) throw new XcoreError('PROTOCOL', 'the receipt is missing');
    receipt = fromBinary(ReceiptSchema, signed.body);
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed receipt', { cause: error });
  }
  if (receipt.serial.length !== SERIAL_BYTES || receipt.shardId.length !== ID_BYTES) {
    throw new XcoreError('PROTOCOL', 'malformed receipt');
  }
  if (!verify(publicKeyOfPeer(receipt.host), RECEIPT_LABEL, signed.body, signed.signature)) {
    throw new XcoreError('REFUSED', 'the receipt is not signed by the host that it names');
  }
  return receipt;
}
