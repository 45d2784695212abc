// Metrics over HTTP, for Prometheus to fetch: GET /metrics on one address, and nothing else.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { XcoreError } from './errors.ts';
import type { Metrics } from './metrics.ts';

const MAX_CONNECTIONS = 16;
const REQUEST_TIMEOUT_MS = 10_000;
const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Where metrics are served. */
export interface MetricsAddress {
  readonly host: string;
  readonly port: number;
}

/** A server that answers. */
export interface MetricsServer {
  /** As http://HOST:PORT/metrics. */
  readonly url: string;
  close(): Promise<void>;
}

/** Reads "9464", "127.0.0.1:9464" or "[::1]:9464"; a port alone is of this machine only. USAGE. */
export function parseMetricsAddress(text: string): MetricsAddress {
  const match = /^(?:(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? NaN);
  if (!(port <= 65_535))
    throw new XcoreError('USAGE', `--metrics ${text} is no address; write it as in 127.0.0.1:9464`);
  return { host: match?.[1] ?? match?.[2] ?? '127.0.0.1', port };
}

/** Serves what `metrics` holds, and figures of the process; rejects with the system's error when nobody can listen there. */
export async function serveMetrics({ host, port }: MetricsAddress, metrics: Metrics): Promise<MetricsServer> {
  metrics.watchProcess();
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('request', (request, response) => {
    const path = request.url?.split('?')[0];
    if (path !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404).end('only GET /metrics\n');
      return;
    }
    metrics.text().then(
      (text) => response.writeHead(200, { 'content-type': CONTENT_TYPE }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const { address, family, port: taken } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${taken}/metrics`,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}
