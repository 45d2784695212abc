// Access control lists as setxattr(2) takes them, from the short text form of acl(5).

const TAGS: Record<string, [number, number]> = { u: [0x01, 0x02], g: [0x04, 0x08], m: [0x10, 0x10], o: [0x20, 0x20] };
const NO_ID = 0xffff_ffff;

/** A list of entries as in `u:1234:rwx`; `u::rwx`, `g::`, `m::` and `o::` name nobody. */
export function acl(...entries: string[]): Buffer {
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(2, 0);
  entries.forEach((entry, n) => {
    const [tag = '', id = '', letters = ''] = entry.split(':');
    const tags = TAGS[tag];
    if (tags === undefined) throw new RangeError(entry);
    bytes.writeUInt16LE(id === '' ? tags[0] : tags[1], 4 + n * 8);
    const permissions = ['r', 'w', 'x'].reduce((sum, letter, bit) => sum | (letters[bit] === letter ? 4 >> bit : 0), 0);
    bytes.writeUInt16LE(permissions, 6 + n * 8);
    bytes.writeUInt32LE(id === '' ? NO_ID : Number(id), 8 + n * 8);
  });
  return bytes;
}
