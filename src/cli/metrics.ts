// --metrics of the commands that serve: figures for Prometheus while they run.

import { XcoreError } from '../lib/errors.ts';
import type { Metrics } from '../lib/metrics.ts';
import { parseMetricsAddress, serveMetrics } from '../lib/metrics-server.ts';
import type { MetricsServer } from '../lib/metrics-server.ts';
import type { Running } from './signals.ts';

/** How the option is described. */
export const METRICS_OPTION = {
  type: 'string',
  requiresArg: true,
  describe: 'serve figures for Prometheus on this port of this machine, or HOST:PORT',
} as const;

/** Serves what `running` counts until it is stopped; nothing where no address is given. `running` ends when nobody can listen there. */
export async function withMetrics<R extends Running & { readonly metrics: Metrics }>(
  address: string | undefined,
  running: R,
): Promise<{ readonly running: Running; readonly url: string | undefined }> {
  if (address === undefined) return { running, url: undefined };
  let server: MetricsServer;
  try {
    server = await serveMetrics(parseMetricsAddress(address), running.metrics);
  } catch (error) {
    await running.stop();
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE')
      throw new XcoreError('EBUSY', `another program listens on --metrics ${address}; give another port`);
    if (code === 'EACCES')
      throw new XcoreError('EACCES', `--metrics ${address} is not allowed; give a port from 1024 on`);
    throw new XcoreError('USAGE', `nobody can listen on --metrics ${address}: ${message}`);
  }
  const stop = async (): Promise<void> => {
    await server.close();
    await running.stop();
  };
  return { running: { ...running, stop }, url: server.url };
}
