// How peers are connected, in words.

import type { Routes } from '../net/network.ts';

/** One phrase; empty without a peer. */
export function describeRoutes({ direct, punched, relayed, reason }: Routes): string {
  const parts = [
    ...(direct > 0 ? [`${direct} directly`] : []),
    ...(punched > 0 ? [`${punched} directly, through both routers (punched)`] : []),
    ...(relayed > 0 ? [`${relayed} through the bridge, which is slower${reason && ` (${reason})`}`] : []),
  ];
  return parts.join('; ');
}
