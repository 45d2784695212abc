// Turns away peers that ask too often, before anything is done for them. The bridge may ask as often as it likes.

import type { Clock } from '../lib/clock.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import { PeerRates } from '../lib/peer-rates.ts';
import type { PeerName } from '../net/network.ts';
import type { ShardHandlers, TransferContext } from '../net/shard-protocol.ts';

/** A refused request counts as so many: checking a signature for nothing is all that most of them cost, and who is honest has hardly any. */
const REFUSED_COUNTS = 25;

/** What the limit goes by. */
export interface RatedOptions {
  readonly clock: Clock;
  readonly bridge: PeerName;
  readonly maxRequestsPerSecond: number;
}

/** The same handlers, where a peer that asks too often gets EAGAIN. */
export function ratedHandlers(handlers: ShardHandlers, options: RatedOptions): ShardHandlers {
  const { clock, bridge, maxRequestsPerSecond } = options;
  const rates = new PeerRates(maxRequestsPerSecond);
  const rated = async <T>({ remotePeer }: TransferContext, answer: () => Promise<T>): Promise<T> => {
    if (remotePeer === bridge) return answer();
    const rate = rates.of(remotePeer, clock.monotonicMs());
    if (!rate.takeNow(clock.monotonicMs())) throw new XcoreError('EAGAIN', 'too many requests; try again later');
    try {
      return await answer();
    } catch (error) {
      if (hasCode(error, 'REFUSED', 'PROTOCOL')) rate.take(clock.monotonicMs(), REFUSED_COUNTS - 1);
      throw error;
    }
  };
  return {
    store: (order, receive, context) => rated(context, () => handlers.store(order, receive, context)),
    retrieve: (order, first, count, context) => rated(context, () => handlers.retrieve(order, first, count, context)),
    copy: (order, source, context) => rated(context, () => handlers.copy(order, source, context)),
    prove: (order, challenge, context) => rated(context, () => handlers.prove(order, challenge, context)),
    findDeletion: (shardId, context) => rated(context, () => handlers.findDeletion(shardId, context)),
    list: (after, limit, context) => rated(context, () => handlers.list(after, limit, context)),
  };
}
