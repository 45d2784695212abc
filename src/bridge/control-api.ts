// What a running bridge answers on its control socket. `xcore bridge status --json` and `xcore bridge hosts --json` print
// this as it is, so fields are only ever added.

/** State of one bridge. */
export interface BridgeStatus {
  readonly bridge: string;
  readonly pid: number;
  readonly startedMs: number;
  readonly hosts: {
    readonly known: number;
    readonly online: number;
    /** Away for so long that their shards are made again elsewhere. */
    readonly lost: number;
    /** By standing: vetting, good, suspended, disqualified, leaving. */
    readonly standings: Readonly<Record<string, number>>;
  };
  /** Of the hosts that are online. */
  readonly space: { readonly capacityBytes: number; readonly usedBytes: number; readonly freeBytes: number };
  /** Mirrors that all hosts are to hold. */
  readonly mirrors: number;
  readonly volumes: number;
  /** Transfers to hosts that were ordered and not confirmed yet. */
  readonly ordersOut: number;
  /** Shards below their number of mirrors, counted up to `toRepairLimit`. */
  readonly toRepair: number;
  readonly toRepairLimit: number;
  /** What is worth the operator's attention. */
  readonly advice: readonly string[];
}

/** One host as the bridge sees it. */
export interface BridgeHost {
  readonly host: string;
  readonly online: boolean;
  readonly standing: string;
  readonly reason: string;
  /** "direct", "relayed" (through the bridge only), "none", or empty while that is not known. */
  readonly reach: string;
  readonly addresses: readonly string[];
  readonly lastSeenMs: number;
  readonly lost: boolean;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  /** That it is to hold. */
  readonly shards: number;
  /** 0 to 1. */
  readonly uptime: number;
  readonly reliability: number;
  /** As clients measured; 0: not yet. */
  readonly bytesPerSecond: number;
  readonly network: string;
  readonly operator: string;
  readonly region: string;
}

/** Calls on the control socket. */
export interface BridgeCalls {
  status: { params: Record<string, never>; result: BridgeStatus };
  /** Hosts in the order of their names, from the one after `after` on, at most 1,000. */
  hosts: { params: { after: string }; result: { hosts: readonly BridgeHost[]; last: boolean } };
}
