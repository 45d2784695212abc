import t from 'tap';
import { pickSeed, Random } from '../support/random.ts';
import { findingsIn } from '../support/findings.ts';
import { abandon, bytesOf, CALLER, openVolume, readAll, temporaryFolder } from '../support/volume.ts';
import type { OpenVolume } from '../support/volume.ts';
import { Model, Node } from './model.ts';

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f'];
const STEPS = 6_000;

async function codeOf(call: () => unknown): Promise<string> {
  try {
    await call();
    return 'ok';
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === undefined) throw error;
    return code;
  }
}

/** The whole tree as text: paths, kinds, modes, link counts, contents, attributes. */
function describe(node: Node, path: string): string[] {
  const own = `${path} ${node.kind} ${node.mode.toString(8)} ${node.nlink}`;
  const xattrs = [...node.xattrs].sort().join(' ');
  if (node.kind === 'file') return [`${own} ${node.data.toString('base64')} ${xattrs}`];
  if (node.kind === 'link') return [`${own} ${node.target} ${xattrs}`];
  const names = [...node.entries.keys()].sort();
  return [`${own} ${xattrs}`, ...names.flatMap((name) => describe(node.entries.get(name) as Node, `${path}/${name}`))];
}

async function describeVolume(volume: OpenVolume, ino: number, path: string): Promise<string[]> {
  const { vfs } = volume;
  const { mode, nlink } = await vfs.getattr(ino);
  const kind = { 0o040000: 'dir', 0o100000: 'file', 0o120000: 'link' }[mode & 0o170000];
  const own = `${path} ${kind} ${(mode & 0o7777).toString(8)} ${nlink}`;
  const pairs: [string, string][] = [];
  for (const name of await vfs.listxattr(ino)) pairs.push([name, (await vfs.getxattr(ino, name)).toString()]);
  const xattrs = pairs.sort().join(' ');
  if (kind === 'file') return [`${own} ${(await readAll(vfs, ino)).toString('base64')} ${xattrs}`];
  if (kind === 'link') return [`${own} ${(await vfs.readlink(ino)).toString()} ${xattrs}`];
  const handle = await vfs.opendir(ino);
  const entries = (await vfs.readdir(ino, handle, 2n, 1_000, true)).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  await vfs.releasedir(ino, handle);
  const below: string[] = [];
  for (const entry of entries) below.push(...(await describeVolume(volume, entry.ino, `${path}/${entry.name}`)));
  return [`${own} ${xattrs}`, ...below];
}

t.test('random operations have the outcomes and the effects that a model has', { timeout: 300_000 }, async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const model = new Model();
  const dir = temporaryFolder(t);
  let volume = await openVolume(dir);
  t.teardown(() => volume.close().catch(() => undefined));
  const inos = new Map<Node, number>([[model.root, 1]]);
  const handles: { node: Node; handle: number }[] = [];
  const counts = new Map<string, number>();

  const nodes = (kind?: Node['kind']): Node[] =>
    [...inos.keys()].filter((node) => kind === undefined || node.kind === kind);
  const inoOf = (node: Node): number => inos.get(node) as number;
  const forgetDead = (): void => {
    for (const node of inos.keys())
      if (node.names === 0 && !handles.some((open) => open.node === node)) inos.delete(node);
  };

  /** One random operation on both; its name, and how each ended. */
  const step = async (): Promise<{ what: string; expected: string; found: string }> => {
    const { vfs } = volume;
    const parent = random.below(8) > 0 ? random.pick(nodes('dir')) : random.pick(nodes());
    const other = random.pick(nodes('dir'));
    const node = random.pick(nodes());
    const name = random.pick(NAMES);
    const newName = random.pick(NAMES);
    const mode = random.below(0o1000);
    const both = async (what: string, onModel: () => unknown, onVolume: () => unknown) => ({
      what,
      expected: await codeOf(onModel),
      found: await codeOf(onVolume),
    });
    const add = async (kind: Node['kind'], make: () => Promise<number>) => {
      let made: Node | null = null;
      const result = await both(
        kind,
        () => (made = model.add(parent, name, kind, kind === 'link' ? 0o777 : mode)),
        async () => {
          const ino = await make();
          if (made !== null) inos.set(made, ino);
        },
      );
      if (made !== null && kind === 'link') (made as Node).target = `to ${name}`;
      return result;
    };
    const p = inoOf(parent);
    switch (random.below(18)) {
      case 0:
      case 1:
        return add('file', async () => {
          const { attributes, file } = await vfs.create(p, name, 0o100000 | mode, 2, CALLER);
          await vfs.release(attributes.ino, file.handle);
          return attributes.ino;
        });
      case 2:
      case 3:
        return add('dir', async () => (await vfs.mkdir(p, name, mode, CALLER)).ino);
      case 4:
        return add('link', async () => (await vfs.symlink(p, name, Buffer.from(`to ${name}`), CALLER)).ino);
      case 5:
        return both(
          'link',
          () => model.link(node, parent, name),
          () => vfs.link(inoOf(node), p, name),
        );
      case 6:
        return both(
          'unlink',
          () => model.unlink(parent, name),
          () => vfs.unlink(p, name),
        );
      case 7:
        return both(
          'rmdir',
          () => model.rmdir(parent, name),
          () => vfs.rmdir(p, name),
        );
      case 8:
      case 9: {
        const flags = random.pick([0, 0, 0, 1, 2]);
        return both(
          `rename ${flags}`,
          () => model.rename(parent, name, other, newName, flags),
          () => vfs.rename(p, name, inoOf(other), newName, flags),
        );
      }
      case 10: {
        const data = random.bytes(random.between(1, 3_000));
        const offset = random.below(5_000);
        if (node.kind !== 'file') return { what: 'none', expected: '', found: '' };
        return both(
          'write',
          () => model.write(node, offset, data),
          () => vfs.write(inoOf(node), 0, offset, data, true),
        );
      }
      case 11: {
        const size = random.below(6_000);
        return both(
          'truncate',
          () => model.truncate(node, size),
          () => vfs.setattr(inoOf(node), { sizeBytes: size }),
        );
      }
      case 12:
        node.mode = mode;
        return both(
          'chmod',
          () => undefined,
          () => vfs.setattr(inoOf(node), { mode }),
        );
      case 13: {
        const key = `user.${name}`;
        if (random.below(2) === 0) {
          return both(
            'setxattr',
            () => node.xattrs.set(key, newName),
            () => vfs.setxattr(inoOf(node), key, Buffer.from(newName), 0),
          );
        }
        const had = node.xattrs.delete(key);
        const found = await codeOf(() => vfs.removexattr(inoOf(node), key));
        return { what: 'removexattr', expected: had ? 'ok' : 'ENODATA', found };
      }
      case 14: {
        const [offset, length] = [random.below(5_000), random.between(1, 3_000)];
        if (node.kind !== 'file') return { what: 'none', expected: '', found: '' };
        return both(
          'punch',
          () => model.punch(node, offset, length),
          () => vfs.fallocate(inoOf(node), 3, offset, length, CALLER),
        );
      }
      case 15: {
        const [offset, toOffset, length] = [random.below(3_000), random.below(5_000), random.between(1, 3_000)];
        const target = random.pick(nodes());
        if (node.kind !== 'file' || target.kind !== 'file') return { what: 'none', expected: '', found: '' };
        return both(
          'copy',
          () => model.copyRange(node, offset, target, toOffset, length),
          () => vfs.copyRange(inoOf(node), offset, inoOf(target), toOffset, length, CALLER),
        );
      }
      case 16: {
        if (handles.length >= 10 || parent.kind !== 'dir' || parent.names === 0) {
          return { what: 'none', expected: '', found: '' };
        }
        const { attributes, file } = await vfs.tmpfile(p, 0o100000 | mode, 2, CALLER);
        const nameless = new Node('file', mode);
        nameless.isNameless = true;
        inos.set(nameless, attributes.ino);
        handles.push({ node: nameless, handle: file.handle });
        const named = random.below(2) === 0;
        if (!named) return { what: 'tmpfile', expected: '', found: '' };
        return both(
          'tmpfile link',
          () => model.link(nameless, other, newName),
          () => vfs.link(attributes.ino, inoOf(other), newName),
        );
      }
      default: {
        if (handles.length < 10 && random.below(2) === 0) {
          const file = random.pick(nodes());
          if (file.kind !== 'file') return { what: 'none', expected: '', found: '' };
          handles.push({ node: file, handle: (await vfs.open(inoOf(file), 0)).handle });
          return { what: 'open', expected: '', found: '' };
        }
        const open = handles.splice(random.below(handles.length), 1)[0];
        if (open === undefined) return { what: 'none', expected: '', found: '' };
        const data = await bytesOf(vfs.read(inoOf(open.node), open.handle, 0, 10_000));
        await vfs.release(inoOf(open.node), open.handle);
        return { what: 'release', expected: 'same', found: data.equals(open.node.data) ? 'same' : 'different' };
      }
    }
  };

  for (let n = 0; n < STEPS; n++) {
    const { what, expected, found } = await step();
    const key = `${what} ${expected}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
    if (expected !== found) return t.fail(`step ${n}: ${what} gave ${found}, ${expected} expected`);
    forgetDead();
    if (n % 500 === 499) {
      for (const { node, handle } of handles.splice(0)) await volume.vfs.release(inoOf(node), handle);
      forgetDead();
      const kill = random.below(2) === 0;
      if (kill) await volume.store.commit();
      if (!kill) t.strictSame(await findingsIn(volume), [], 'a check of the index finds nothing');
      await (kill ? abandon(volume) : volume.close());
      volume = await openVolume(dir);
      const [expectedTree, foundTree] = [describe(model.root, ''), await describeVolume(volume, 1, '')];
      if (!t.same(foundTree, expectedTree, `step ${n}: the trees are the same`)) return;
      t.equal(volume.tree.counters.inodes, inos.size);
      const sizes = nodes().map((node) => volume.tree.inode(inoOf(node))?.storedBytes ?? 0);
      t.equal(
        volume.tree.counters.storedBytes,
        sizes.reduce((sum, size) => sum + size, 0),
      );
      let liveBytes = 0;
      for (let shard = 1; shard < volume.tree.counters.nextShard; shard++) {
        liveBytes += volume.tree.requireShard(shard).liveBytes;
      }
      t.equal(liveBytes, volume.tree.counters.storedBytes);
      await volume.store.commit();
      t.same(await volume.tree.orphans(), []);
    }
  }
  t.ok(counts.size > 30, `${counts.size} different outcomes met`);
});
