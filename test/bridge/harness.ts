// A bridge without a network: its real parts on a real LevelDB, a clock that the test moves, and
// parties that speak to the service as streams would.

import { createHash, randomBytes } from 'node:crypto';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { assembleBridge } from '../../src/bridge/assemble.ts';
import type { BridgeStatus } from '../../src/bridge/control-api.ts';
import type { AssembledBridge } from '../../src/bridge/assemble.ts';
import type { Care } from '../../src/bridge/assemble-care.ts';
import { authenticationText } from '../../src/net/authentication.ts';
import type { HostRegistry } from '../../src/bridge/host-registry.ts';
import { openLevelStore } from '../../src/bridge/level-store.ts';
import { BRIDGE_DEFAULTS } from '../../src/bridge/options.ts';
import type { BridgeOptions } from '../../src/bridge/options.ts';
import type { Store } from '../../src/lib/store.ts';
import { publicKeyOf, sign } from '../../src/crypto/sign.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { createMetrics } from '../../src/lib/metrics.ts';
import type { HostCalls } from '../../src/net/connected-hosts.ts';
import { readOrder, signReceipt } from '../../src/net/orders.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { BridgeRequestSchema, BridgeResponseSchema, EntryHeaderSchema } from '../../src/net/proto/wire_pb.ts';
import type { BridgeResponse, LogEntry, Signed, Target } from '../../src/net/proto/wire_pb.ts';
import type {
  RequestBody,
  RequestInit,
  ResponseInit,
  ResponseValue,
  RpcContext,
  RpcSession,
} from '../../src/net/rpc.ts';
import { FakeClock } from '../support/fake-clock.ts';

export const MIB = 1024 * 1024;

/** What a test has of a test: where to put files, and what to do at its end. */
export interface Scope {
  testdir(): string;
  teardown(action: () => Promise<void>): unknown;
}

/** A party with an Ed25519 identity. */
export class Party {
  readonly seed = randomBytes(32);
  readonly peer = peerNameOf(this.seed);
}

/** The bridge under test; `reopen` is a restart. */
export class Harness {
  readonly clock = new FakeClock();
  readonly options: BridgeOptions;
  readonly identity = new Party();
  readonly #dir: string;
  #store: Store;
  #parts: AssembledBridge;

  /** What hosts answer; nobody is there unless a test says otherwise. */
  calls: HostCalls = { retrieve: nobody, copy: nobody, list: nobody, prove: nobody, findDeletion: nobody };

  private constructor(dir: string, options: BridgeOptions, store: Store) {
    this.#dir = dir;
    this.options = options;
    this.#store = store;
    this.#parts = undefined as never;
  }

  static async start(t: Scope, options: Partial<BridgeOptions> = {}): Promise<Harness> {
    const dir = join(t.testdir(), 'store');
    const harness = new Harness(dir, { ...BRIDGE_DEFAULTS, ...options }, await openLevelStore(dir));
    await harness.#assemble();
    t.teardown(() => harness.#store.close());
    return harness;
  }

  get care(): Care {
    return this.#parts.care;
  }

  get registry(): HostRegistry {
    return this.#parts.registry;
  }

  get store(): Store {
    return this.#store;
  }

  /** Stops without any farewell and starts again on the same folder, to which something may happen meanwhile. */
  async reopen(meanwhile: (dir: string) => Promise<void> = async () => {}): Promise<void> {
    await this.#parts.registry.flush();
    await this.#store.close();
    await meanwhile(this.#dir);
    this.#store = await openLevelStore(this.#dir);
    await this.#assemble();
  }

  /** A copy of its store as it is now, after a restart. */
  async backUp(): Promise<string> {
    const backup = `${this.#dir}-backup-${randomBytes(3).toString('hex')}`;
    await this.reopen((dir) => cp(dir, backup, { recursive: true }));
    return backup;
  }

  /** Starts again with its store as it was when the copy was made. */
  async restore(backup: string): Promise<void> {
    await this.reopen(async (dir) => {
      await rm(dir, { recursive: true });
      await cp(backup, dir, { recursive: true });
    });
  }

  /** One request on a stream. */
  async call<C extends ResponseValueCase>(session: Session, body: RequestInit, expected: C): Promise<ResponseValue<C>> {
    const request = create(BridgeRequestSchema, { id: 1, body }).body as RequestBody;
    const { peer: remotePeer, rpc } = session;
    const answer = await this.#parts.service.handle(request, { remotePeer, session: rpc, signal: rpc.signal });
    const received = create(BridgeResponseSchema, { id: 1, body: answer }).body;
    if (received.case !== expected) throw new Error(`answered with ${received.case}`);
    return received.value as ResponseValue<C>;
  }

  /** What the service does with a request, from a multiaddr if that matters. */
  handle(body: RequestBody, context: RpcContext, from?: string): Promise<ResponseInit> {
    return this.#parts.service.handle(body, context, from);
  }

  /** What its operator is told. */
  status(): Promise<BridgeStatus> {
    const { control } = this.#parts;
    return control.status({}, { progress: () => {}, signal: new AbortController().signal });
  }

  /** A stream on which a device speaks for a volume. */
  async connect(owner: Party, device = new Party(), lifetimeMs = 60_000): Promise<Client> {
    const session = new Session(device.peer);
    const expiresMs = BigInt(this.clock.now() + lifetimeMs);
    const text = authenticationText(this.identity.peer, device.peer, expiresMs);
    const signature = sign(owner.seed, 'xcore/authenticate/1', text);
    const volume = publicKeyOf(owner.seed);
    await this.call(session, { case: 'authenticate', value: { volume, expiresMs, signature } }, 'done');
    return new Client(this, owner, device, session);
  }

  /** Hosts that have registered and sent a heartbeat. */
  async join(count: number, capacityBytes = 1_000 * MIB): Promise<Host[]> {
    const hosts = Array.from({ length: count }, () => new Host(this));
    for (const host of hosts) await host.register(capacityBytes);
    return hosts;
  }

  async #assemble(): Promise<void> {
    this.#parts = await assembleBridge(
      {
        store: this.#store,
        seed: this.identity.seed,
        bridge: this.identity.peer,
        clock: this.clock,
        random: Math.random,
        randomBytes,
        metrics: createMetrics(),
        log: silentLogger,
        calls: {
          retrieve: (...call) => this.calls.retrieve(...call),
          copy: (...call) => this.calls.copy(...call),
          list: (...call) => this.calls.list(...call),
          prove: (...call) => this.calls.prove(...call),
          findDeletion: (...call) => this.calls.findDeletion(...call),
        },
      },
      this.options,
    );
  }
}

function nobody(): Promise<never> {
  return Promise.reject(new XcoreError('UNREACHABLE'));
}

type ResponseValueCase = NonNullable<BridgeResponse['body']['case']>;

/** One stream's other end. */
export class Session {
  readonly peer: string;
  readonly events: ResponseInit[] = [];
  readonly rpc: RpcSession;
  readonly #ending = new AbortController();

  constructor(peer: string) {
    this.peer = peer;
    this.rpc = {
      remotePeer: peer,
      signal: this.#ending.signal,
      push: (event) => this.events.push(event) > 0,
      widen: () => {},
    };
  }

  end(): void {
    this.#ending.abort();
  }
}

/** A host as the bridge sees it. */
export class Host extends Party {
  readonly session = new Session(this.peer);
  readonly #harness: Harness;

  constructor(harness: Harness) {
    super();
    this.#harness = harness;
  }

  async register(capacityBytes: number): Promise<void> {
    const value = { addresses: ['/ip4/127.0.0.1/tcp/4001'], capacityBytes: BigInt(capacityBytes), version: '1' };
    await this.#harness.call(this.session, { case: 'registerHost', value }, 'done');
    await this.beat(capacityBytes);
  }

  beat(freeBytes: number, deleted: Uint8Array[] = []): Promise<ResponseValue<'heartbeatReply'>> {
    const value = { capacityBytes: BigInt(1_000 * MIB), freeBytes: BigInt(freeBytes), deleted };
    return this.#harness.call(this.session, { case: 'heartbeat', value }, 'heartbeatReply');
  }

  /** The receipt for an order, as if the shard had arrived. */
  receipt(target: Target): Signed {
    const { serial, shardId, sizeBytes, client } = readOrder(target.order);
    return signReceipt(this.seed, { serial, shardId, sizeBytes, client, host: this.peer, timeMs: 1n });
  }
}

/** A shard that nobody has looked into. */
export interface TestShard {
  readonly shardId: Uint8Array;
  readonly sizeBytes: number;
}

/** A shard with a random id. */
export function someShard(sizeBytes = MIB): TestShard {
  return { shardId: randomBytes(32), sizeBytes };
}

/** A device that speaks for a volume. */
export class Client {
  readonly owner: Party;
  readonly device: Party;
  readonly session: Session;
  readonly volume: Uint8Array;
  readonly #harness: Harness;

  constructor(harness: Harness, owner: Party, device: Party, session: Session) {
    this.#harness = harness;
    this.owner = owner;
    this.device = device;
    this.session = session;
    this.volume = publicKeyOf(owner.seed);
  }

  call<C extends ResponseValueCase>(body: RequestInit, expected: C): Promise<ResponseValue<C>> {
    return this.#harness.call(this.session, body, expected);
  }

  place(shards: TestShard[], excludeHosts: string[] = []): Promise<ResponseValue<'placements'>> {
    return this.call({ case: 'place', value: { shards, excludeHosts } }, 'placements');
  }

  confirm(receipts: Signed[]): Promise<ResponseValue<'confirmed'>> {
    return this.call({ case: 'confirm', value: { receipts, transfers: [] } }, 'confirmed');
  }

  async locate(shardId: Uint8Array): Promise<string[]> {
    const { locations } = await this.call({ case: 'locate', value: { shardIds: [shardId] } }, 'locations');
    return locations[0]!.mirrors.map((mirror) => mirror.host);
  }

  space(): Promise<ResponseValue<'spaceInfo'>> {
    return this.call({ case: 'space', value: {} }, 'spaceInfo');
  }

  lease(takeOver = false): Promise<ResponseValue<'lease'>> {
    return this.call({ case: 'acquireLease', value: { takeOver } }, 'lease');
  }

  /** Places a shard, stores it on all targets and confirms. */
  async store(hosts: readonly Host[], shard = someShard()): Promise<TestShard> {
    const { placements } = await this.place([shard]);
    const receipts = placements[0]!.targets.map((target) =>
      hosts.find((host) => host.peer === target.host)!.receipt(target),
    );
    await this.confirm(receipts);
    return shard;
  }

  append(fields: EntryFields): Promise<ResponseValue<'head'>> {
    return this.call({ case: 'append', value: { entry: signedEntry(this, fields) } }, 'head');
  }

  /** Hands in an entry that the bridge had before, as it was signed. */
  appendAgain(entry: ReturnType<typeof signedEntry>): Promise<ResponseValue<'head'>> {
    return this.call({ case: 'append', value: { entry, again: true } }, 'head');
  }
}

/** A signed entry; what is not said is right for an entry of one byte by this device. */
export function signedEntry(
  writer: { readonly owner: Pick<Party, 'seed'>; readonly device: Pick<Party, 'peer'> },
  fields: EntryFields,
): Pick<LogEntry, 'header' | 'signature' | 'body'> {
  const { body = Buffer.from('x'), signWith = writer.owner, ...rest } = fields;
  const header = toBinary(
    EntryHeaderSchema,
    create(EntryHeaderSchema, {
      version: 1,
      volume: publicKeyOf(writer.owner.seed),
      device: writer.device.peer,
      prevHash: new Uint8Array(32),
      bodyHash: createHash('sha256').update(body).digest(),
      bodySizeBytes: body.length,
      ...rest,
    }),
  );
  return { header, signature: sign(signWith.seed, 'xcore/entry/1', header), body };
}

/** Fields of an entry's header, its body, and who signs it. */
export type EntryFields = MessageInitShape<typeof EntryHeaderSchema> & {
  readonly body?: Uint8Array;
  readonly signWith?: Pick<Party, 'seed'>;
};
