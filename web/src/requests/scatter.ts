// Where requests stand in a picture of time against duration, and which of them are marked or pointed at.

export interface Requests {
  readonly count: number;
  /** Whether older ones were left out. */
  readonly truncated: boolean;
  readonly startMs: Float64Array;
  /** NaN while it runs. */
  readonly durationNs: Float64Array;
  readonly isError: Uint8Array;
  /** HTTP or gRPC code, -1 where there is none. */
  readonly statusCode: Int16Array;
  readonly service: readonly string[];
  readonly name: readonly string[];
  readonly traceId: readonly string[];
  readonly spanId: readonly string[];
  /** Of how many requests of the range, at either end, there are spans; undefined where none are followed. */
  readonly sampling: { readonly requests: number; readonly sampled: number; readonly limit: number } | undefined;
}

/** Which share of the requests these are, if they are not all. */
export function shareText(sampling: Requests['sampling']): string {
  if (sampling === undefined || sampling.sampled >= sampling.requests) return '';
  const share = (100 * sampling.sampled) / sampling.requests;
  const digits = share >= 10 ? 0 : share >= 1 ? 1 : 2;
  return `sampled: ${share < 0.01 ? 'less than 0.01' : share.toFixed(digits)} %`;
}

export const OUTCOMES = ['ok', 'redirect', 'client', 'error', 'open', 'unknown'] as const;
export type Outcome = (typeof OUTCOMES)[number];

export const OUTCOME_NAMES: Readonly<Record<Outcome, string>> = {
  ok: 'ok',
  redirect: '3xx',
  client: '4xx',
  error: 'error',
  open: 'still running',
  unknown: 'no status seen',
};

export function outcomeOf(requests: Requests, index: number): Outcome {
  if (Number.isNaN(requests.durationNs[index]!)) return 'open';
  if (requests.isError[index] === 1) return 'error';
  const code = requests.statusCode[index]!;
  if (code < 0) return 'unknown';
  // gRPC's codes are small: 0 is well, and what is an error has been said above.
  if (code < 300) return 'ok';
  return code < 400 ? 'redirect' : code < 500 ? 'client' : 'error';
}

/** What is marked: a stretch of time and one of durations. */
export interface Marked {
  readonly fromMs: number;
  readonly toMs: number;
  readonly minNs: number;
  readonly maxNs: number;
}

/** `1700000000000-1700000060000,1000000-2000000`; `undefined` for what makes no sense. */
export function parseMarked(text: string): Marked | undefined {
  const parts = /^(\d{1,14})-(\d{1,14}),(\d{1,17})-(\d{1,17})$/.exec(text)?.slice(1).map(Number);
  if (parts === undefined) return undefined;
  const [fromMs, toMs, minNs, maxNs] = parts as [number, number, number, number];
  return fromMs <= toMs && minNs <= maxNs ? { fromMs, toMs, minNs, maxNs } : undefined;
}

export function formatMarked({ fromMs, toMs, minNs, maxNs }: Marked): string {
  return `${Math.floor(fromMs)}-${Math.ceil(toMs)},${Math.max(0, Math.floor(minNs))}-${Math.ceil(maxNs)}`;
}

/** The length of a request; of one that still runs, so far. */
export function lengthNs(requests: Requests, index: number, nowMs: number): number {
  const ended = requests.durationNs[index]!;
  return Number.isNaN(ended) ? Math.max(0, (nowMs - requests.startMs[index]!) * 1e6) : ended;
}

export function isMarked(requests: Requests, index: number, marked: Marked, nowMs: number): boolean {
  const start = requests.startMs[index]!;
  const length = lengthNs(requests, index, nowMs);
  return start >= marked.fromMs && start <= marked.toMs && length >= marked.minNs && length <= marked.maxNs;
}

/** The picture's edges and size, in CSS pixels; durations are on a logarithmic scale. */
export interface Axes {
  readonly fromMs: number;
  readonly toMs: number;
  /** Powers of ten, at least one apart. */
  readonly minNs: number;
  readonly maxNs: number;
  readonly width: number;
  readonly height: number;
}

/** Whole powers of ten around all durations, so that the axis does not tremble while requests come in. */
export function axesOf(requests: Requests, fromMs: number, toMs: number, nowMs: number, width: number, height: number): Axes {
  let [least, most] = [Infinity, 0];
  for (let index = 0; index < requests.count; index++) {
    const length = Math.max(1e3, lengthNs(requests, index, nowMs));
    if (length < least) least = length;
    if (length > most) most = length;
  }
  if (least > most) [least, most] = [1e6, 1e9];
  const low = Math.floor(Math.log10(least));
  const high = Math.max(low + 1, Math.ceil(Math.log10(most)));
  return { fromMs, toMs, minNs: 10 ** low, maxNs: 10 ** high, width, height };
}

export function xOf(axes: Axes, ms: number): number {
  return ((ms - axes.fromMs) / (axes.toMs - axes.fromMs)) * axes.width;
}

export function yOf(axes: Axes, ns: number): number {
  const [low, high] = [Math.log10(axes.minNs), Math.log10(axes.maxNs)];
  const place = (Math.log10(Math.max(axes.minNs, ns)) - low) / (high - low);
  return axes.height * (1 - place);
}

export function msAt(axes: Axes, x: number): number {
  return axes.fromMs + (Math.max(0, Math.min(axes.width, x)) / axes.width) * (axes.toMs - axes.fromMs);
}

export function nsAt(axes: Axes, y: number): number {
  const [low, high] = [Math.log10(axes.minNs), Math.log10(axes.maxNs)];
  return 10 ** (low + (1 - Math.max(0, Math.min(axes.height, y)) / axes.height) * (high - low));
}

/** Powers of ten inside the picture. */
export function durationTicks(axes: Axes): number[] {
  const ticks: number[] = [];
  for (let power = Math.round(Math.log10(axes.minNs)); power <= Math.round(Math.log10(axes.maxNs)); power++) ticks.push(10 ** power);
  return ticks;
}

/** The request nearest to a point, at most so many pixels away; -1 if there is none. */
export function nearest(requests: Requests, axes: Axes, nowMs: number, x: number, y: number, withinPx: number): number {
  let best = -1;
  let least = withinPx * withinPx;
  for (let index = 0; index < requests.count; index++) {
    const dx = xOf(axes, requests.startMs[index]!) - x;
    if (Math.abs(dx) > withinPx) continue;
    const dy = yOf(axes, lengthNs(requests, index, nowMs)) - y;
    const far = dx * dx + dy * dy;
    if (far <= least) {
      least = far;
      best = index;
    }
  }
  return best;
}

export type ListOrder = 'slowest' | 'newest';

/** Indexes of those that are listed. */
export function listed(requests: Requests, marked: Marked | undefined, order: ListOrder, nowMs: number): number[] {
  const indexes: number[] = [];
  for (let index = 0; index < requests.count; index++) {
    if (marked === undefined || isMarked(requests, index, marked, nowMs)) indexes.push(index);
  }
  return indexes.sort((one, other) =>
    order === 'newest'
      ? requests.startMs[other]! - requests.startMs[one]!
      : lengthNs(requests, other, nowMs) - lengthNs(requests, one, nowMs),
  );
}

/** The value below which a part of the sorted numbers lies; NaN of none. */
export function quantile(sorted: readonly number[], part: number): number {
  return sorted.length === 0 ? NaN : sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!;
}
