// A filesystem in plain objects: what the operations mean, without a thought for speed or disks.

/** A file, directory or symlink. */
export class Node {
  readonly kind: 'file' | 'dir' | 'link';
  mode: number;
  names = 0;
  /** It never had a name and may be given one. */
  isNameless = false;
  data = Buffer.alloc(0);
  target = '';
  parent: Node | null = null;
  readonly entries = new Map<string, Node>();
  readonly xattrs = new Map<string, string>();

  constructor(kind: Node['kind'], mode: number) {
    this.kind = kind;
    this.mode = mode;
  }

  get nlink(): number {
    if (this.kind !== 'dir') return this.names;
    if (this.names === 0) return 0;
    return 2 + [...this.entries.values()].filter(({ kind }) => kind === 'dir').length;
  }
}

/** What an operation fails with. */
export class Errno extends Error {
  readonly code: string;

  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

function fail(code: string): never {
  throw new Errno(code);
}

/** The operations, each with all its checks. */
export class Model {
  readonly root = new Node('dir', 0o700);

  constructor() {
    this.root.names = 1;
    this.root.parent = this.root;
  }

  #dir(node: Node): Map<string, Node> {
    if (node.kind !== 'dir') fail('ENOTDIR');
    if (node.names === 0) fail('ENOENT');
    return node.entries;
  }

  add(parent: Node, name: string, kind: Node['kind'], mode: number): Node {
    const entries = this.#dir(parent);
    if (entries.has(name)) fail('EEXIST');
    const node = new Node(kind, mode);
    node.names = 1;
    if (kind === 'dir') node.parent = parent;
    entries.set(name, node);
    return node;
  }

  link(node: Node, parent: Node, name: string): void {
    if (node.kind === 'dir') fail('EPERM');
    if (node.names === 0 && !node.isNameless) fail('ENOENT');
    const entries = this.#dir(parent);
    if (entries.has(name)) fail('EEXIST');
    entries.set(name, node);
    node.names++;
    node.isNameless = false;
  }

  unlink(parent: Node, name: string): void {
    const entries = this.#dir(parent);
    const node = entries.get(name) ?? fail('ENOENT');
    if (node.kind === 'dir') fail('EISDIR');
    entries.delete(name);
    node.names--;
  }

  rmdir(parent: Node, name: string): void {
    const entries = this.#dir(parent);
    const node = entries.get(name) ?? fail('ENOENT');
    if (node.kind !== 'dir') fail('ENOTDIR');
    if (node.entries.size > 0) fail('ENOTEMPTY');
    entries.delete(name);
    node.names--;
  }

  #isBelow(node: Node, top: Node): boolean {
    for (let at: Node | null = node; at !== null; at = at.parent === at ? null : at.parent) if (at === top) return true;
    return false;
  }

  rename(from: Node, name: string, to: Node, newName: string, flags: number): void {
    const [source, destination] = [this.#dir(from), this.#dir(to)];
    const moved = source.get(name) ?? fail('ENOENT');
    const target = destination.get(newName);
    if (flags === 1 && target !== undefined) fail('EEXIST');
    if (flags === 2 && target === undefined) fail('ENOENT');
    if (moved.kind === 'dir' && this.#isBelow(to, moved)) fail('EINVAL');
    if (flags === 2 && target !== undefined) {
      if (target.kind === 'dir' && this.#isBelow(from, target)) fail('EINVAL');
      source.set(name, target);
      destination.set(newName, moved);
      if (target.kind === 'dir') target.parent = from;
    } else {
      if (target === moved) return;
      if (target !== undefined) {
        if (target.kind === 'dir' && moved.kind !== 'dir') fail('EISDIR');
        if (target.kind !== 'dir' && moved.kind === 'dir') fail('ENOTDIR');
        if (target.entries.size > 0) fail('ENOTEMPTY');
        target.names--;
      }
      source.delete(name);
      destination.set(newName, moved);
    }
    if (moved.kind === 'dir') moved.parent = to;
  }

  write(node: Node, offset: number, data: Buffer): void {
    if (node.kind !== 'file') fail('EINVAL');
    const grown = Buffer.alloc(Math.max(node.data.length, offset + data.length));
    node.data.copy(grown);
    data.copy(grown, offset);
    node.data = grown;
  }

  truncate(node: Node, size: number): void {
    if (node.kind !== 'file') fail(node.kind === 'dir' ? 'EISDIR' : 'EINVAL');
    const resized = Buffer.alloc(size);
    node.data.copy(resized);
    node.data = resized;
  }

  punch(node: Node, offset: number, length: number): void {
    node.data.fill(0, Math.min(offset, node.data.length), Math.min(offset + length, node.data.length));
  }

  copyRange(node: Node, offset: number, target: Node, toOffset: number, length: number): void {
    const data = Buffer.from(node.data.subarray(offset, offset + length));
    if (data.length === 0) return;
    if (node === target && offset < toOffset + data.length && toOffset < offset + data.length) fail('EINVAL');
    this.write(target, toOffset, data);
  }
}
