// One registry of Prometheus metrics a process, handed to whoever counts. No globals.

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Makes and prints metrics; each name is made once and shared from then on. */
export interface Metrics {
  counter(name: string, help: string, labels?: readonly string[]): Counter;
  gauge(name: string, help: string, labels?: readonly string[]): Gauge;
  /** `buckets` are upper bounds, ascending, in the unit that the name ends with. */
  histogram(name: string, help: string, buckets: readonly number[], labels?: readonly string[]): Histogram;
  /** Has gauges set before each text(). */
  onRead(read: () => void | Promise<void>): void;
  /** Adds what is known of the process: processor time, memory, delays of its event loop. */
  watchProcess(): void;
  /** All metrics in the Prometheus text format. */
  text(): Promise<string>;
}

/** Makes an empty registry; names get the prefix `xcore_`. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const readers: (() => void | Promise<void>)[] = [];
  const make = <M>(name: string, create: (fullName: string) => M): M => {
    const fullName = `xcore_${name}`;
    return (registry.getSingleMetric(fullName) as M | undefined) ?? create(fullName);
  };
  return {
    counter: (name, help, labels = []) =>
      make(name, (fullName) => new Counter({ name: fullName, help, labelNames: [...labels], registers: [registry] })),
    gauge: (name, help, labels = []) =>
      make(name, (fullName) => new Gauge({ name: fullName, help, labelNames: [...labels], registers: [registry] })),
    histogram: (name, help, buckets, labels = []) =>
      make(
        name,
        (fullName) =>
          new Histogram({
            name: fullName,
            help,
            buckets: [...buckets],
            labelNames: [...labels],
            registers: [registry],
          }),
      ),
    onRead: (read) => void readers.push(read),
    watchProcess: () => collectDefaultMetrics({ register: registry, prefix: 'xcore_' }),
    text: async () => {
      for (const read of readers) await read();
      return registry.metrics();
    },
  };
}
