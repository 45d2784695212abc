// Makes the bridge's signed orders: serial, expiry, signature. Remembers none of them.

import type { Clock } from '../lib/clock.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { PeerName } from '../net/network.ts';
import { signOrder } from '../net/orders.ts';
import type { Operation } from '../net/orders.ts';
import type { Order, Signed } from '../net/proto/wire_pb.ts';

const SERIAL_BYTES = 16;

/** For how long each kind of order is good. */
export type OrderLifetimes = Readonly<Record<Operation, number>>;

/** What an order is for. */
export interface OrderWish {
  readonly operation: Operation;
  readonly shardId: Uint8Array;
  readonly sizeBytes: number;
  readonly client: PeerName;
  readonly host: PeerName;
  readonly volume: Uint8Array;
  /** Fresh when absent. */
  readonly serial?: Uint8Array;
}

/** An order and what the bridge has to remember of it. */
export interface MadeOrder {
  readonly signed: Signed;
  readonly serial: Uint8Array;
  readonly expiresMs: number;
}

/** Signs orders with the bridge's seed. */
export class OrderSigner {
  readonly #seed: Uint8Array;
  readonly #clock: Clock;
  readonly #randomBytes: RandomBytes;
  readonly #lifetimesMs: OrderLifetimes;

  constructor(
    components: { readonly seed: Uint8Array; readonly clock: Clock; readonly randomBytes: RandomBytes },
    lifetimesMs: OrderLifetimes,
  ) {
    this.#seed = components.seed;
    this.#clock = components.clock;
    this.#randomBytes = components.randomBytes;
    this.#lifetimesMs = lifetimesMs;
  }

  /** Makes one order. */
  make(wish: OrderWish): MadeOrder {
    const serial = wish.serial ?? this.newSerial();
    const expiresMs = this.#clock.now() + this.#lifetimesMs[wish.operation];
    return { signed: signOrder(this.#seed, { ...wish, serial, expiresMs: BigInt(expiresMs) }), serial, expiresMs };
  }

  /** When an order of this signer was made. */
  madeMs({ operation, expiresMs }: Pick<Order, 'operation' | 'expiresMs'>): number {
    return Number(expiresMs) - (this.#lifetimesMs[operation as Operation] ?? 0);
  }

  /** 16 random bytes. */
  newSerial(): Uint8Array {
    return this.#randomBytes(SERIAL_BYTES);
  }
}
