// libp2p's relay server, with bounds on what it holds: left to itself it takes bytes as fast as they come, and keeps a
// copy of them all for as long as the relayed connection lives. Places and messages are libp2p's.

import { circuitRelayServer } from '@libp2p/circuit-relay-v2';
import { StreamCloseEvent } from '@libp2p/interface';
import type { AbortOptions, Stream } from '@libp2p/interface';
import { asError, XcoreError } from '../lib/errors.ts';
import { StreamJoin } from './stream-join.ts';

type Init = NonNullable<Parameters<typeof circuitRelayServer>[0]>;
type Factory = ReturnType<typeof circuitRelayServer>;
type Relay = ReturnType<Factory>;

/** Bounds of a relay, beside libp2p's own. */
export interface RelayBounds {
  readonly maxConnections: number;
  /** Of one relayed connection, both ways together. */
  readonly maxBytes: number;
}

/** A request for a connection, on a stream for messages; unwrapped, it is the stream to be joined. */
interface Hop {
  readonly stream: { pb(codec: unknown): unknown; unwrap(): Stream };
}

/** Two methods of libp2p's relay: the first opens a stream by the second, and joins it with the one it came on. */
interface Joining {
  handleConnect: (this: Joining, hop: Hop, options: AbortOptions) => Promise<void>;
  stopHop: (this: Joining, stop: object, options: AbortOptions) => Promise<Stream | undefined>;
}

/** libp2p's relay, as a service of a node, where a StreamJoin joins the streams. */
export function boundedRelayServer(init: Init, bounds: RelayBounds): Factory {
  return (components) => {
    const relay = circuitRelayServer(init)(components);
    if (!joins(relay)) throw new TypeError('this relay joins its streams elsewhere');
    return withBounds(relay, bounds);
  };
}

function withBounds<R extends Relay & Joining>(relay: R, { maxConnections, maxBytes }: RelayBounds): R {
  const { handleConnect, stopHop } = relay;
  let connections = 0;

  relay.handleConnect = async ({ stream, ...hop }, options) => {
    if (connections >= maxConnections) throw new XcoreError('REFUSED', 'the relay has too many connections');
    connections += 1;
    let destination: Stream | undefined;
    let join: StreamJoin | undefined;
    const ends = [new StandIn(), new StandIn()] as const;
    const onEnd = (): void => {
      connections -= 1;
      for (const end of ends) end.dispatchEvent(new StreamCloseEvent());
    };
    const unwrap = (): Stream => {
      if (!destination) throw new TypeError('there is nothing to join with');
      join = new StreamJoin(stream.unwrap(), destination, maxBytes);
      for (const end of ends) end.join = join;
      void join.ended.then(onEnd);
      return ends[0].asStream();
    };
    const open: Joining['stopHop'] = async (stop, options) => {
      destination = await stopHop.call(relay, stop, options);
      return destination && ends[1].asStream();
    };
    try {
      const self = Object.create(relay, { stopHop: { value: open } }) as R;
      await handleConnect.call(self, { ...hop, stream: { pb: (codec) => stream.pb(codec), unwrap } }, options);
    } catch (error) {
      destination?.abort(asError(error));
      throw error;
    } finally {
      if (!join) onEnd();
    }
  };
  return relay;
}

/** What libp2p gets in the place of a stream that it would join itself: nothing ever comes on it. */
class StandIn extends EventTarget {
  readonly writeStatus = 'writable';
  join: StreamJoin | undefined;

  abort(error: Error): void {
    this.join?.abort(error);
  }

  async close(): Promise<void> {}

  /** As far as the relay uses one. */
  asStream(): Stream {
    return this as unknown as Stream;
  }
}

function joins(relay: object): relay is Joining {
  return 'handleConnect' in relay && 'stopHop' in relay;
}
