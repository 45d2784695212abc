// How coarsely addresses are told apart when mirrors are to lie in different places.

const IPV4_PARTS = 3;
const IPV6_GROUPS = 4;

/** The /24 or /64 of a multiaddr, as text; empty for loopback and for what is neither IPv4 nor IPv6. */
export function networkPrefix(address: string): string {
  const [, protocol, ip = ''] = address.split('/');
  if (protocol === 'ip4') return ip.startsWith('127.') ? '' : ip.split('.').slice(0, IPV4_PARTS).join('.');
  if (protocol !== 'ip6' || ip === '::1') return '';
  const mapped = /^::ffff:(\d+\.\d+\.\d+)\.\d+$/i.exec(ip)?.[1];
  if (mapped !== undefined) return mapped.startsWith('127.') ? '' : mapped;
  return expanded(ip).slice(0, IPV6_GROUPS).join(':');
}

/** The eight groups of an IPv6 address, without leading zeros. */
function expanded(ip: string): string[] {
  const [head = '', tail] = ip.toLowerCase().replace(/%.*$/, '').split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const missing = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array.from({ length: missing }, () => '0'), ...after];
  return groups.map((group) => group.replace(/^0+(?=.)/, ''));
}
