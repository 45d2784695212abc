// Shows what the benchmark measured: a table for the terminal and a drawing for the README.

/** What one target did on one workload. */
export interface Cell {
  /** In the workload's unit, a value for each round. */
  readonly rounds: readonly number[];
  readonly median: number;
  /** Processor seconds of its daemons, median of the rounds. */
  readonly cpuSeconds: number;
  /** Of the network behind them, where it is measured with them. */
  readonly serverCpuSeconds: number;
  /** Largest resident size of its daemons, MiB. */
  readonly peakMib: number;
  /** Seconds after which a round was ended that took longer; it is not among the rounds. */
  readonly endedAfter?: number;
}

/** One line of the table. */
export interface Row {
  readonly workload: string;
  readonly unit: string;
  /** By the target's name; without the targets that have no such thing. */
  readonly cells: Readonly<Record<string, Cell>>;
}

/** All that was measured. */
export interface Report {
  readonly machine: string;
  readonly rounds: number;
  readonly targets: readonly string[];
  readonly rows: readonly Row[];
}

/** The middle value; the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[Math.ceil(sorted.length / 2) - 1] ?? NaN, sorted[Math.floor(sorted.length / 2)] ?? NaN];
  return (low + high) / 2;
}

function format(value: number): string {
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** The median of a cell, or how much longer than that it took. */
function valueOf({ median: value, endedAfter }: Cell): string {
  return endedAfter === undefined ? format(value) : `> ${endedAfter}`;
}

/** How many times better than `base` a value is. */
function ratio(unit: string, value: number, base: number): number {
  return unit === 's' ? base / value : value / base;
}

/** Lines of text: medians, spread, ratios to the first target, processor seconds and memory. */
export function tableOf({ machine, rounds, targets, rows }: Report): string {
  const width = Math.max(...rows.map((row) => row.workload.length));
  const [first = ''] = targets;
  const lines = [
    machine,
    `medians of ${rounds} rounds; × ${first}; processor seconds and MiB of the daemon, + those of bridge and hosts`,
    '',
  ];
  lines.push(`${''.padEnd(width)}  ${targets.map((name) => name.padStart(30)).join('')}`);
  for (const { workload, unit, cells } of rows) {
    const base = cells[first]?.median ?? NaN;
    const texts = targets.map((name) => {
      const cell = cells[name];
      if (!cell) return '-'.padStart(30);
      if (cell.endedAfter !== undefined) return `${valueOf(cell)} s`.padStart(30);
      const spread = (Math.max(...cell.rounds) - Math.min(...cell.rounds)) / cell.median / 2;
      const servers = cell.serverCpuSeconds >= 0.05 ? `+${cell.serverCpuSeconds.toFixed(1)}` : '';
      const used = cell.peakMib > 0 ? ` ${cell.cpuSeconds.toFixed(1)}${servers}s ${cell.peakMib}M` : '';
      const times = name === first || Number.isNaN(base) ? '' : ` ${ratio(unit, cell.median, base).toFixed(2)}×`;
      return `${format(cell.median)}±${Math.round(spread * 100)}%${times}${used}`.padStart(30);
    });
    lines.push(`${workload.padEnd(width)}  ${texts.join('')}  ${unit}`);
  }
  return lines.join('\n');
}

/** The same as a table for a document: medians, and how the last target compares with the best of those behind a daemon. */
export function markdownOf({ machine, rounds, targets, rows }: Report): string {
  const own = targets.at(-1) ?? '';
  const lines = [`${machine}; medians of ${rounds} rounds.`, ''];
  lines.push(`| | | ${targets.join(' | ')} | daemon’s processor s, peak MiB |`);
  lines.push(`|---|---|${targets.map(() => '--:').join('|')}|--:|`);
  for (const { workload, unit, cells } of rows) {
    const texts = targets.map((name) => {
      const cell = cells[name];
      return cell === undefined ? '–' : name === own ? `**${valueOf(cell)}**` : valueOf(cell);
    });
    const { cpuSeconds = 0, serverCpuSeconds = 0, peakMib = 0 } = cells[own] ?? {};
    const used = `${cpuSeconds.toFixed(1)}${serverCpuSeconds >= 0.05 ? ` + ${serverCpuSeconds.toFixed(1)}` : ''}, ${peakMib}`;
    lines.push(`| ${workload} | ${unit} | ${texts.join(' | ')} | ${used} |`);
  }
  return lines.join('\n');
}

const BAR = 11;
const LEFT = 330;
const WIDE = 420;
const COLORS = ['#9aa0a6', '#c0a060', '#7aa874', '#6b8fb5', '#b57a9c', '#d9480f'];

/** Bars by row, the best of each at full length; an SVG document. */
export function drawingOf({ machine, targets, rows }: Report): string {
  const parts: string[] = [];
  let y = 50;
  const label = (x: number, at: number, text: string, more = ''): string =>
    `<text x="${x}" y="${at}" ${more}>${text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`;
  targets.forEach((name, n) => {
    parts.push(`<rect x="${20 + n * 110}" y="24" width="10" height="10" fill="${COLORS[n % COLORS.length]}"/>`);
    parts.push(label(34 + n * 110, 33, name));
  });
  for (const { workload, unit, cells } of rows) {
    const shown = targets.filter((name) => cells[name] && cells[name].endedAfter === undefined);
    const speeds = shown.map((name) => (unit === 's' ? 1 / cells[name]!.median : cells[name]!.median));
    const best = Math.max(...speeds);
    parts.push(label(LEFT - 10, y + (shown.length * BAR) / 2 + 4, workload, 'text-anchor="end"'));
    shown.forEach((name, n) => {
      const long = Math.max(1, ((speeds[n] ?? 0) / best) * WIDE).toFixed(1);
      const color = COLORS[targets.indexOf(name) % COLORS.length];
      parts.push(`<rect x="${LEFT}" y="${y}" width="${long}" height="${BAR - 1}" fill="${color}"/>`);
      parts.push(label(LEFT + Number(long) + 4, y + BAR - 2, `${format(cells[name]!.median)} ${unit}`));
      y += BAR;
    });
    y += 8;
  }
  const size = `width="${LEFT + WIDE + 90}" height="${y + 10}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="10">`,
    '<rect width="100%" height="100%" fill="white"/>',
    label(20, 15, `longer is better; ${machine}`),
    ...parts,
    '</svg>\n',
  ].join('\n');
}
