// How far an address reaches. A party on the internet has no business announcing addresses inside somebody's own network.

/** 0: this machine; 1: a private network; 2: the internet, and what cannot be told. */
type Scope = 0 | 1 | 2;

/** Those of the multiaddrs that reach at least as far as `from`, the multiaddr that the announcement came from; all if that is unknown. */
export function announceable(addresses: readonly string[], from: string): string[] {
  const [, protocol] = from.split('/');
  if (protocol !== 'ip4' && protocol !== 'ip6') return [...addresses];
  const scope = scopeOf(from);
  return addresses.filter((address) => scopeOf(address) >= scope);
}

function scopeOf(address: string): Scope {
  const [, protocol, ip = ''] = address.split('/');
  if (protocol === 'ip4') return scopeOfIpv4(ip);
  if (protocol !== 'ip6') return 2;
  const lower = ip.toLowerCase();
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(lower)?.[1];
  if (mapped !== undefined) return scopeOfIpv4(mapped);
  if (lower === '::1' || lower === '::') return 0;
  // RFC 4193 (fc00::/7) and RFC 4291 §2.5.6 (fe80::/10)
  return /^f[cd]|^fe[89ab]/.test(lower) ? 1 : 2;
}

function scopeOfIpv4(ip: string): Scope {
  const [a = 0, b = 0] = ip.split('.').map(Number);
  if (a === 127 || a === 0) return 0;
  // RFC 1918, RFC 3927 (169.254/16) and RFC 6598 (100.64/10)
  const isPrivate =
    a === 10 ||
    (a === 172 && b >= 16 && b < 32) ||
    (a === 192 && b === 168) ||
    (a === 169 && b === 254) ||
    (a === 100 && b >= 64 && b < 128);
  return isPrivate ? 1 : 2;
}
