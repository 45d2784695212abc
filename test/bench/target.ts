// What the benchmark measures on: a folder, the processes that serve it, and how to make it cold.

/** A folder to measure. */
export interface Target {
  readonly name: string;
  /** Where the work is done. */
  readonly dir: string;
  /** Processes that serve it on this machine, as its user sees them; their time and memory are counted. */
  pids(): number[];
  /** Processes of the network behind it; undefined where they are not counted. */
  servers?(): number[];
  /** Waits until nothing goes on in the background that would disturb a measurement; rejects when that takes longer than `withinMs`, if told. */
  settle(withinMs?: number): Promise<void>;
  /** Holds its background work, which may take minutes, until resume(); undefined where waiting for it is quicker. */
  readonly pause?: () => void;
  readonly resume?: () => void;
  /** Forgets every copy of file contents on this machine; undefined where there is no other place for them. */
  readonly forget?: () => Promise<void>;
  /** Takes the mount away, as its user would, and brings it back; undefined where that says nothing. */
  readonly remount?: {
    readonly umount: () => Promise<void>;
    readonly mount: () => Promise<void>;
    /** After mount(): finds the processes that serve it now. */
    readonly find: () => Promise<void>;
  };
}

/** Makes a target in an empty folder of its own. */
export type StartTarget = () => Promise<Target>;
