// The network of a simulated world in the place of libp2p: nodes, connections, and streams that keep their order and
// are cut at any moment. Messages take their time; between two streams nothing is in order.

import { crc32 } from 'node:zlib';
import type { PeerId } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { ByteStream, NetworkNode, NodeConnection } from '../../src/net/node.ts';
import type { Luck } from './luck.ts';
import type { SimProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';

/** Until a node notices that a connection is dead on which nothing comes back. */
const NOTICE_MS = [5_000, 30_000] as const;
const BYTES_PER_MS = 10_000;

type Serve = Parameters<NetworkNode['handle']>[1];

/** All nodes, and what lies between them. */
export class SimNetwork {
  readonly scheduler: Scheduler;
  readonly luck: Luck;
  readonly #nodes = new Map<string, SimNode>();
  /** Pairs of nodes that cannot reach each other, with what waits for the end of it. */
  readonly #cuts = new Map<string, { count: number; readonly waiting: (() => void)[] }>();
  readonly #connections = new Set<Connection>();

  constructor(scheduler: Scheduler, luck: Luck) {
    this.scheduler = scheduler;
    this.luck = luck;
  }

  /** Brings a process onto the network; its node goes with it. */
  join(process: SimProcess, peer: string, ip: string): SimNode {
    const node = new SimNode(this, process, peer, ip);
    this.#nodes.set(peer, node);
    process.onDeath(() => node.vanish());
    return node;
  }

  find(peer: string): SimNode | undefined {
    return this.#nodes.get(peer);
  }

  leave(node: SimNode): void {
    if (this.#nodes.get(node.name) === node) this.#nodes.delete(node.name);
  }

  /** Nothing gets from one peer to the other, or back, until the function returned is called. */
  cut(a: string, b: string): () => void {
    const key = [a, b].sort().join(' ');
    const cut = this.#cuts.get(key) ?? { count: 0, waiting: [] };
    cut.count += 1;
    this.#cuts.set(key, cut);
    for (const connection of this.#connections) if (connection.joins(a, b)) connection.doubt();
    return () => {
      cut.count -= 1;
      if (cut.count > 0) return;
      this.#cuts.delete(key);
      for (const go of cut.waiting) go();
    };
  }

  isCut(a: string, b: string): boolean {
    return this.#cuts.has([a, b].sort().join(' '));
  }

  /** Calls `arrive` after the way between two nodes, or once there is one again. */
  travel(from: SimNode, to: SimNode, sizeBytes: number, arrive: () => void, notBefore = 0): number {
    const slow = from.slowness * to.slowness;
    const atMs = Math.max(
      notBefore,
      this.scheduler.nowMs +
        slow * (from.distanceMs + to.distanceMs) * (0.7 + this.luck.next()) +
        (slow * sizeBytes) / BYTES_PER_MS,
    );
    const deliver = (): void => {
      const cut = this.#cuts.get([from.name, to.name].sort().join(' '));
      if (cut) cut.waiting.push(deliver);
      else arrive();
    };
    this.scheduler.after(atMs - this.scheduler.nowMs, deliver);
    return atMs;
  }

  connect(from: SimNode, to: SimNode): Connection {
    const connection = new Connection(this, from, to);
    this.#connections.add(connection);
    return connection;
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
  }

  /** Open connections. */
  get connections(): readonly Connection[] {
    return [...this.#connections];
  }
}

/** One node: all that its process knows of the network. */
export class SimNode implements NetworkNode {
  readonly name: string;
  readonly process: SimProcess;
  readonly peerId: PeerId;
  readonly distanceMs: number;
  /** How many times slower than usual its messages travel. */
  slowness = 1;
  readonly #network: SimNetwork;
  readonly #address: Multiaddr;
  readonly #handlers = new Map<string, Serve>();
  readonly #ends = new Set<End>();

  constructor(network: SimNetwork, process: SimProcess, peer: string, ip: string) {
    this.#network = network;
    this.process = process;
    this.name = peer;
    this.peerId = peerIdFromString(peer);
    this.#address = multiaddr(`/ip4/${ip}/tcp/4001`);
    this.distanceMs = 1 + 30 * process.luck.next();
  }

  get address(): Multiaddr {
    return this.#address;
  }

  getMultiaddrs(): Multiaddr[] {
    return [this.#address];
  }

  getConnections(peer: PeerId): NodeConnection[] {
    const name = peer.toString();
    return [...this.#ends].filter((end) => end.other.node.name === name);
  }

  handle(protocol: string, serve: Serve): Promise<void> {
    this.#handlers.set(protocol, serve);
    return Promise.resolve();
  }

  handlerOf(protocol: string): Serve | undefined {
    return this.#handlers.get(protocol);
  }

  async dialProtocol(
    addresses: Multiaddr[],
    protocol: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<ByteStream> {
    const peer = addresses[0]!.toString().split('/p2p/')[1]!;
    let [end] = [...this.#ends].filter((candidate) => candidate.other.node.name === peer);
    end ??= await this.#dial(peer, signal);
    return end.newStream(protocol, { signal });
  }

  #dial(peer: string, signal: AbortSignal): Promise<End> {
    return orAborted(this.process, signal, (resolve, reject) => {
      this.process.scheduler.after(2 * (this.distanceMs + 15), () => {
        if (!this.process.alive || signal.aborted) return;
        const target = this.#network.find(peer);
        if (this.#network.isCut(this.name, peer)) return;
        if (!target) {
          // A machine that is off says nothing; one that is on says no.
          if (this.process.luck.chance(0.5)) reject(new Error('connection refused'));
          return;
        }
        resolve(this.#network.connect(this, target).ends[0]);
      });
    });
  }

  add(end: End): void {
    this.#ends.add(end);
  }

  remove(end: End): void {
    this.#ends.delete(end);
  }

  /** Its process is no more; the others notice sooner or later. */
  vanish(): void {
    this.#network.leave(this);
    for (const end of [...this.#ends]) end.connection.breakAt(end, 'the process died');
  }

  stop(): Promise<void> {
    this.vanish();
    return Promise.resolve();
  }
}

/** A connection, which has two ends. */
export class Connection {
  readonly network: SimNetwork;
  readonly ends: readonly [End, End];

  constructor(network: SimNetwork, from: SimNode, to: SimNode) {
    this.network = network;
    this.ends = [new End(this, from), new End(this, to)];
    from.add(this.ends[0]);
    to.add(this.ends[1]);
  }

  joins(a: string, b: string): boolean {
    const names = this.ends.map(({ node }) => node.name);
    return names.includes(a) && names.includes(b);
  }

  otherOf(end: End): End {
    return this.ends[0] === end ? this.ends[1] : this.ends[0];
  }

  /** Each end finds out by itself if nothing comes back for long. */
  doubt(): void {
    const [a, b] = this.ends;
    for (const end of this.ends) {
      this.network.scheduler.after(this.network.luck.between(...NOTICE_MS), () => {
        if (end.status === 'open' && this.network.isCut(a.node.name, b.node.name))
          this.breakAt(end, 'nothing came back');
      });
    }
  }

  /** Breaks one end; the other one hears of it, or notices later. */
  breakAt(end: End, why: string): void {
    if (end.status !== 'open') return;
    const other = this.otherOf(end);
    this.network.scheduler.trace(`${end.node.process.name} loses ${other.node.process.name}`);
    end.break(why);
    this.network.forget(this);
    const { luck, scheduler } = this.network;
    const silent = this.network.isCut(end.node.name, other.node.name) || luck.chance(0.2);
    scheduler.after(silent ? luck.between(...NOTICE_MS) : luck.between(1, 100), () => {
      if (other.status === 'open') other.break(why);
    });
  }
}

/** One end of a connection. */
class End implements NodeConnection {
  readonly connection: Connection;
  readonly node: SimNode;
  status: NodeConnection['status'] = 'open';
  readonly #streams = new Set<SimStream>();

  constructor(connection: Connection, node: SimNode) {
    this.connection = connection;
    this.node = node;
  }

  get other(): End {
    return this.connection.otherOf(this);
  }

  get remotePeer(): PeerId {
    return this.other.node.peerId;
  }

  get remoteAddr(): Multiaddr {
    return this.other.node.address;
  }

  newStream(protocol: string, { signal }: { readonly signal: AbortSignal }): Promise<ByteStream> {
    return orAborted(this.node.process, signal, (resolve, reject) => {
      const { network } = this.connection;
      const here = new SimStream(this);
      const there = new SimStream(this.other);
      here.peer = there;
      there.peer = here;
      this.#streams.add(here);
      here.onBreak = reject;
      network.travel(this.node, this.other.node, 0, () => {
        if (this.other.status !== 'open') return;
        const serve = this.other.node.handlerOf(protocol);
        network.travel(this.other.node, this.node, 0, () => {
          if (here.status !== 'open' || signal.aborted) return;
          if (serve) resolve(here);
          else reject(Object.assign(new Error('protocol not supported'), { name: 'UnsupportedProtocolError' }));
        });
        if (!serve) return;
        this.other.#streams.add(there);
        serve(there, this.other);
      });
    });
  }

  forget(stream: SimStream): void {
    this.#streams.delete(stream);
  }

  break(why: string): void {
    this.status = 'closed';
    this.node.remove(this);
    for (const stream of [...this.#streams]) stream.fail(new Error(why));
  }
}

type Listener = (event: unknown) => void;

/** One end of a stream. */
class SimStream {
  status: 'open' | 'closing' | 'closed' | 'aborted' | 'reset' = 'open';
  readableEnded = false;
  writeBufferLength = 0;
  peer: SimStream | undefined;
  onBreak: (error: Error) => void = () => {};
  readonly #end: End;
  readonly #listeners = new Map<string, Set<Listener>>();
  #paused = false;
  /** Arrived and not handed on yet; null is the end. */
  #arrived: (Buffer | null)[] = [];
  #lastArrivalMs = 0;
  #writableEnded = false;

  constructor(end: End) {
    this.#end = end;
  }

  addEventListener(type: string, listener: Listener): void {
    const known = this.#listeners.get(type);
    if (known) known.add(listener);
    else this.#listeners.set(type, new Set([listener]));
  }

  removeEventListener(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener);
  }

  send(data: Uint8Array | { subarray(): Uint8Array }): boolean {
    if (!this.#end.node.process.alive) return false;
    if (this.status !== 'open' || this.#writableEnded) throw new Error('the stream is closed');
    const bytes = Buffer.from(data instanceof Uint8Array ? data : data.subarray());
    this.writeBufferLength += bytes.length;
    this.#travel(bytes.length, (peer) => peer.#arrive(bytes));
    return true;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#end.node.process.scheduler.after(0, () => this.#handOn());
  }

  close(): Promise<void> {
    if (this.status === 'open' && !this.#writableEnded) {
      this.#writableEnded = true;
      this.#travel(0, (peer) => peer.#arrive(null));
      if (this.readableEnded) this.#over('closed');
    }
    return Promise.resolve();
  }

  abort(error: Error): void {
    if (this.status !== 'open') return;
    if (this.#end.node.process.alive) this.#travel(0, (peer) => peer.fail(new Error('the stream was reset')));
    this.#over('aborted', error);
  }

  /** It is no more, without anybody here having ended it. */
  fail(error: Error): void {
    if (this.status !== 'open') return;
    this.#over('reset', error);
    this.onBreak(error);
  }

  #travel(sizeBytes: number, arrive: (peer: SimStream) => void): void {
    const { connection, node, other, status } = this.#end;
    if (status !== 'open') return;
    this.#lastArrivalMs = connection.network.travel(
      node,
      other.node,
      sizeBytes,
      () => {
        const { peer } = this;
        if (peer?.status === 'open' && other.status === 'open' && other.node.process.alive) arrive(peer);
      },
      this.#lastArrivalMs,
    );
  }

  #arrive(bytes: Buffer | null): void {
    const { process } = this.#end.node;
    process.scheduler.trace(
      `${this.#end.other.node.process.name} to ${process.name} ${bytes ? `${bytes.length} ${crc32(bytes)}` : 'end'}`,
    );
    this.#arrived.push(bytes);
    this.#handOn();
  }

  #handOn(): void {
    while (!this.#paused && this.#arrived.length > 0 && this.status === 'open' && this.#end.node.process.alive) {
      const next = this.#arrived.shift()!;
      if (next === null) {
        this.readableEnded = true;
        this.#tell('end', {});
        if (this.#writableEnded) this.#over('closed');
        return;
      }
      this.peer?.taken(next.length);
      this.#tell('message', { data: next });
    }
  }

  /** The other side has read so many bytes. */
  taken(sizeBytes: number): void {
    this.writeBufferLength -= sizeBytes;
    if (this.status === 'open' && this.#end.node.process.alive) this.#tell('idle', {});
  }

  #over(status: 'closed' | 'aborted' | 'reset', error?: Error): void {
    this.status = status;
    this.#arrived = [];
    this.#end.forget(this);
    if (this.#end.node.process.alive) this.#tell('close', { error });
  }

  #tell(type: string, event: unknown): void {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) listener(event);
  }
}

function orAborted<T>(
  process: SimProcess,
  signal: AbortSignal,
  begin: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (!process.alive) return;
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    begin(
      (value) => {
        signal.removeEventListener('abort', onAbort);
        resolve(value);
      },
      (error) => {
        signal.removeEventListener('abort', onAbort);
        reject(error);
      },
    );
  });
}
