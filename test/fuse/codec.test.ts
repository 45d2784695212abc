// Bytes of the FUSE protocol: what is refused, what is put where.

import fs from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DIRENT, ENTRY_OUT, IN_HEADER, INIT, INIT_OUT, OP, OUT_HEADER, opcodeName } from '../../src/fuse/abi.ts';
import { isSupported, isTooNew, negotiate, putAgreement } from '../../src/fuse/handshake.ts';
import { mountAt, parseMountInfo } from '../../src/fuse/mount-table.ts';
import { ReplyWriter, validity } from '../../src/fuse/reply.ts';
import { MalformedRequest, Request } from '../../src/fuse/request.ts';
import type { Attributes } from '../../src/vfs/filesystem.ts';

const UNIQUE = 0x1_2345_6789;

function message(body: Buffer, changes: { len?: number; opcode?: number } = {}): [Buffer, number] {
  const buffer = Buffer.alloc(4096);
  const size = IN_HEADER.size + body.length;
  buffer.writeUInt32LE(changes.len ?? size, IN_HEADER.len);
  buffer.writeUInt32LE(changes.opcode ?? OP.LOOKUP, IN_HEADER.opcode);
  buffer.writeBigUInt64LE(BigInt(UNIQUE), IN_HEADER.unique);
  buffer.writeBigUInt64LE(7n, IN_HEADER.nodeid);
  buffer.writeUInt32LE(1000, IN_HEADER.uid);
  buffer.writeUInt32LE(1001, IN_HEADER.gid);
  buffer.writeUInt32LE(1002, IN_HEADER.pid);
  body.copy(buffer, IN_HEADER.size);
  return [buffer, size];
}

const ATTRIBUTES: Attributes = {
  ino: 2 ** 40 + 5,
  mode: 0o100644,
  nlink: 1,
  uid: 1,
  gid: 2,
  rdev: 3,
  sizeBytes: 2 ** 45 + 1,
  blocks: 9,
  atimeNs: -1n,
  mtimeNs: 1_700_000_000_999_999_999n,
  ctimeNs: 0n,
  btimeNs: 1n,
};

void t.test('a request is read from its bytes', async (t) => {
  const body = Buffer.alloc(32);
  body.writeUInt32LE(0xffff_fff0, 0);
  body.writeBigUInt64LE(2n ** 53n - 1n, 4);
  body.writeBigInt64LE(-2n, 12);
  body.writeUInt32LE(5, 20);
  body.write('\xe9\0rest', 24, 'latin1');
  const request = new Request(...message(body));
  t.match(request, { opcode: OP.LOOKUP, unique: UNIQUE, nodeid: 7, uid: 1000, gid: 1001, pid: 1002 });
  t.match(request.caller, { uid: 1000, gid: 1001, pid: 1002 });
  t.equal(request.bodyBytes, 32);
  t.equal(request.u32(0), 0xffff_fff0);
  t.equal(request.u64(4), 2 ** 53 - 1);
  t.equal(request.timeNs(12, 20), -1_999_999_995n);
  t.equal(request.name(24), '\xe9');
  t.equal(request.name(26), 'rest');
  t.same(request.copy(24, 1), Buffer.from([0xe9]));
});

void t.test('what a request cannot be is refused', async (t) => {
  t.throws(() => new Request(...message(Buffer.alloc(8), { len: 47 })), MalformedRequest);
  t.throws(() => new Request(message(Buffer.alloc(0))[0], 39), MalformedRequest);
  const [buffer, size] = message(Buffer.from('name without end'));
  buffer.fill(0x41, size, size + 8);
  const request = new Request(buffer, size);
  t.throws(() => request.name(0), MalformedRequest, 'a NUL behind the end does not count');
  t.throws(() => request.u32(13), MalformedRequest);
  t.throws(() => request.u64(9), MalformedRequest);
  t.throws(() => request.borrow(0, 17), MalformedRequest);
  t.throws(() => new Request(...message(Buffer.alloc(8, 0xff))).u64(0), { code: 'EFBIG' });
});

void t.test('replies are laid out as the kernel reads them', async (t) => {
  const path = join(t.testdir(), 'reply');
  const fd = fs.openSync(path, 'w+');
  t.teardown(() => fs.closeSync(fd));
  const writer = new ReplyWriter(fd, { entry: validity(1500), attributes: validity(0), negative: validity(2000) });
  const sent = (): Buffer => {
    t.equal(writer.send(), 0);
    const bytes = fs.readFileSync(path);
    t.equal(bytes.readUInt32LE(OUT_HEADER.len), bytes.length);
    t.equal(bytes.readBigUInt64LE(OUT_HEADER.unique), BigInt(UNIQUE));
    return bytes.subarray(OUT_HEADER.size);
  };
  writer.begin(UNIQUE);
  writer.putEntry(ATTRIBUTES);
  const entry = sent();
  t.equal(entry.length, ENTRY_OUT.size);
  t.same(
    [entry.readBigUInt64LE(0), entry.readBigUInt64LE(16), entry.readUInt32LE(32)],
    [BigInt(ATTRIBUTES.ino), 1n, 500_000_000],
  );
  const attributes = entry.subarray(ENTRY_OUT.attr);
  t.equal(attributes.readBigUInt64LE(8), BigInt(ATTRIBUTES.sizeBytes));
  t.same([attributes.readBigInt64LE(24), attributes.readUInt32LE(48)], [-1n, 999_999_999], 'before 1970');
  t.same([attributes.readBigInt64LE(32), attributes.readUInt32LE(52)], [1_700_000_000n, 999_999_999]);
});

void t.test('directory entries are aligned, bounded, and "." counts as no lookup', async (t) => {
  const path = join(t.testdir(), 'reply');
  const fd = fs.openSync(path, 'w+');
  t.teardown(() => fs.closeSync(fd));
  const writer = new ReplyWriter(fd, { entry: validity(1), attributes: validity(1), negative: validity(0) });
  writer.begin(UNIQUE);
  const dot = { name: '.', ino: 1, type: 0o040000, cookie: 1n, attributes: ATTRIBUTES };
  const named = { name: 'n'.repeat(9), ino: 5, type: 0o100000, cookie: 2n ** 63n - 1n, attributes: ATTRIBUTES };
  const dotBytes = ENTRY_OUT.size + DIRENT.name + 8;
  const namedBytes = ENTRY_OUT.size + DIRENT.name + 16;
  t.equal(writer.putDirectoryEntry(dot, true, dotBytes + namedBytes), true);
  t.equal(writer.putDirectoryEntry(named, true, dotBytes + namedBytes - 1), false);
  t.equal(writer.putDirectoryEntry(named, true, dotBytes + namedBytes), true);
  t.equal(writer.putDirectoryEntry(dot, true, dotBytes + namedBytes), false);
  t.equal(writer.send(), 0);
  const bytes = fs.readFileSync(path).subarray(OUT_HEADER.size);
  t.equal(bytes.length, dotBytes + namedBytes);
  t.equal(bytes.readBigUInt64LE(0), 0n, 'nodeid of "."');
  const second = bytes.subarray(dotBytes);
  t.equal(second.readBigUInt64LE(0), BigInt(ATTRIBUTES.ino));
  const dirent = second.subarray(ENTRY_OUT.size);
  t.equal(dirent.readBigUInt64LE(DIRENT.off), 2n ** 63n - 1n);
  t.same([dirent.readUInt32LE(DIRENT.namelen), dirent.readUInt32LE(DIRENT.type)], [9, 8]);
  t.equal(dirent.toString('latin1', DIRENT.name, DIRENT.name + 16), `${'n'.repeat(9)}${'\0'.repeat(7)}`);
});

void t.test('data goes out whole, in one part or in thousands', async (t) => {
  for (const [count, size] of [
    [0, 0],
    [1, 16 * 1024],
    [1, 16 * 1024 + 1],
    [4, 256 * 1024],
    [1023, 1000],
    [1024, 1000],
    [5000, 200],
  ] as const) {
    const path = join(t.testdir(), 'reply');
    const fd = fs.openSync(path, 'w+');
    const writer = new ReplyWriter(fd, { entry: validity(1), attributes: validity(1), negative: validity(1) });
    const parts = Array.from({ length: count }, (_item, index) => Buffer.alloc(size, index));
    writer.begin(UNIQUE);
    writer.putParts(parts, count * size);
    t.equal(writer.send(), 0);
    const bytes = fs.readFileSync(path);
    t.equal(bytes.readUInt32LE(0), bytes.length);
    t.ok(bytes.subarray(OUT_HEADER.size).equals(Buffer.concat(parts)), `${count} of ${size} bytes`);
    fs.closeSync(fd);
  }
});

void t.test('the handshake takes what is offered and no more', async (t) => {
  const offer = (major: number, minor: number, flags: number, flags2?: number): Request => {
    const body = Buffer.alloc(flags2 === undefined ? 16 : 64);
    body.writeUInt32LE(major, 0);
    body.writeUInt32LE(minor, 4);
    body.writeUInt32LE(131072, 8);
    body.writeUInt32LE(flags >>> 0, 12);
    if (flags2 !== undefined) body.writeUInt32LE(flags2 >>> 0, 16);
    return new Request(...message(body, { opcode: OP.INIT }));
  };
  const everything = negotiate(offer(7, 45, -1, -1), true);
  t.ok(isSupported(everything));
  t.ok(everything.flags & INIT.WRITEBACK_CACHE);
  t.notOk(everything.flags & INIT.AUTO_INVAL_DATA);
  t.ok(everything.flags & INIT.DONT_MASK && everything.flags & INIT.POSIX_ACL, 'the umask gives way to inherited ACLs');
  t.notOk(everything.flags & ((1 << 1) | (1 << 10)), 'locks stay in the kernel');
  t.notOk(negotiate(offer(7, 45, -1, -1), false).flags & INIT.WRITEBACK_CACHE);
  const old = negotiate(offer(7, 31, INIT.ASYNC_READ | INIT.MAX_PAGES), true);
  t.equal(old.flags, INIT.ASYNC_READ | INIT.MAX_PAGES);
  t.equal(old.flags2, 0);
  t.ok(isSupported(old));
  t.notOk(isSupported(negotiate(offer(7, 26, -1), true)));
  t.ok(isTooNew(negotiate(offer(8, 0, -1, -1), true)));

  const path = join(t.testdir(), 'reply');
  const fd = fs.openSync(path, 'w+');
  t.teardown(() => fs.closeSync(fd));
  const writer = new ReplyWriter(fd, { entry: validity(1), attributes: validity(1), negative: validity(1) });
  writer.begin(UNIQUE);
  putAgreement(writer, everything);
  t.equal(writer.send(), 0);
  const out = fs.readFileSync(path).subarray(OUT_HEADER.size);
  t.equal(out.length, 64);
  t.same([out.readUInt32LE(INIT_OUT.major), out.readUInt32LE(INIT_OUT.maxWrite)], [7, 1 << 20]);
  t.same([out.readUInt32LE(INIT_OUT.timeGran), out.readUInt16LE(INIT_OUT.maxPages)], [1, 256]);
});

void t.test('mount tables are read with their escapes', async (t) => {
  const text = [
    '24 1 0:22 / / rw,relatime - ext4 /dev/vda rw',
    '42 24 0:39 / /tmp/with\\040blank\\134and\\011tab rw,nosuid shared:1 master:2 - fuse.xcore xcore rw,user_id=0',
    'garbage',
    '',
  ].join('\n');
  t.same(parseMountInfo(text), [
    { device: '0:22', mountPoint: '/', type: 'ext4' },
    { device: '0:39', mountPoint: '/tmp/with blank\\and\ttab', type: 'fuse.xcore' },
  ]);
  t.ok(mountAt('/'));
  t.equal(mountAt('/not/mounted'), null);
  t.equal(opcodeName(OP.READ), 'READ');
  t.equal(opcodeName(9999), 'opcode 9999');
});
