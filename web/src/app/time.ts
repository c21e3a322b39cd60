// Moments and stretches of time as the API takes them and as a person reads them. Milliseconds since the
// Unix epoch inside; in the URL `-15m`, Unix seconds, or nothing for "now".

export interface Range {
  readonly fromMs: number;
  readonly toMs: number;
}

const UNITS_MS: Readonly<Record<string, number>> = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };

/** What is offered, longest last. */
export const PRESETS: readonly (readonly [string, string])[] = [
  ['-5m', '5 minutes'],
  ['-15m', '15 minutes'],
  ['-1h', '1 hour'],
  ['-3h', '3 hours'],
  ['-12h', '12 hours'],
  ['-24h', '24 hours'],
  ['-72h', '3 days'],
  ['-168h', '7 days'],
];

/** Milliseconds of `-15m`; `undefined` if it is not of that form. */
export function relativeMs(text: string): number | undefined {
  const parts = /^-(\d{1,6})([smhd])$/.exec(text);
  return parts === null ? undefined : Number(parts[1]) * UNITS_MS[parts[2]!]!;
}

/** A moment of the URL; `undefined` for what makes no sense. */
export function momentMs(text: string, nowMs: number): number | undefined {
  if (text === '') return nowMs;
  const before = relativeMs(text);
  if (before !== undefined) return nowMs - before;
  if (/^\d{1,11}(\.\d+)?$/.test(text)) return Number(text) * 1e3;
  const parsed = Date.parse(text);
  return Number.isNaN(parsed) ? undefined : parsed;
}

/** Where the range lies now. Falls back to the last quarter of an hour. */
export function rangeOf(from: string, to: string, nowMs: number): Range {
  const toMs = momentMs(to, nowMs) ?? nowMs;
  const fromMs = momentMs(from, nowMs) ?? toMs - 15 * 60e3;
  return fromMs < toMs ? { fromMs, toMs } : { fromMs: toMs - 15 * 60e3, toMs };
}

/** Whether the range moves with the clock. */
export function followsNow(from: string, to: string): boolean {
  return to === '' && relativeMs(from) !== undefined;
}

/** `1700000000-1700000060`; `undefined` for what is no stretch of time. */
export function parseBrush(text: string): Range | undefined {
  const parts = /^(\d{1,11})-(\d{1,11})$/.exec(text);
  if (parts === null) return undefined;
  const range = { fromMs: Number(parts[1]) * 1e3, toMs: Number(parts[2]) * 1e3 };
  return range.fromMs < range.toMs ? range : undefined;
}

/** Whole seconds, at least one. */
export function formatBrush({ fromMs, toMs }: Range): string {
  const from = Math.round(fromMs / 1e3);
  return `${from}-${Math.max(from + 1, Math.round(toMs / 1e3))}`;
}

const two = (number: number): string => String(number).padStart(2, '0');

/** `14:03:20`, with the day in front if that is not today's; in the visitor's time zone. */
export function formatMoment(ms: number, nowMs: number, withSeconds = true): string {
  const [date, today] = [new Date(ms), new Date(nowMs)];
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}${withSeconds ? `:${two(date.getSeconds())}` : ''}`;
  if (date.toDateString() === today.toDateString()) return clock;
  const day = `${date.toLocaleString('en', { month: 'short' })} ${date.getDate()}`;
  return date.getFullYear() === today.getFullYear() ? `${day}, ${clock}` : `${day} ${date.getFullYear()}, ${clock}`;
}

/** `14:03:20 – 14:05:00`; the day once. */
export function formatRange({ fromMs, toMs }: Range, nowMs: number): string {
  const sameDay = new Date(fromMs).toDateString() === new Date(toMs).toDateString();
  return `${formatMoment(fromMs, nowMs)} – ${formatMoment(toMs, sameDay ? toMs : nowMs)}`;
}

/** `15 min`, `1 h 30 min`, `45 s`: the two largest units. */
export function formatSpan(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1e3));
  const parts: string[] = [];
  let rest = seconds;
  for (const [size, unit] of [
    [86400, 'd'],
    [3600, 'h'],
    [60, 'min'],
    [1, 's'],
  ] as const) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count} ${unit}`);
    if (parts.length === 2) break;
  }
  return parts.length === 0 ? '0 s' : parts.join(' ');
}

/** For an `<input type="datetime-local">`, which has no time zone. */
export function toLocalInput(ms: number): string {
  const date = new Date(ms);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];

/** Round moments inside the range, at most about `wanted`; on the clock of the visitor. */
export function ticksOf({ fromMs, toMs }: Range, wanted: number): number[] {
  const ideal = (toMs - fromMs) / 1e3 / Math.max(1, wanted);
  const stepMs = (TICKS_S.find((step) => step >= ideal) ?? TICKS_S.at(-1)!) * 1e3;
  const zoneMs = new Date(fromMs).getTimezoneOffset() * 60e3;
  const ticks: number[] = [];
  for (let tick = Math.ceil((fromMs - zoneMs) / stepMs) * stepMs + zoneMs; tick < toMs && ticks.length < 50; tick += stepMs) {
    ticks.push(tick);
  }
  return ticks;
}

/** A sentence of the server, with its moments as the visitor's clock has them. */
export function withLocalTimes(text: string, nowMs: number): string {
  return text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)/g, (moment) => {
    const ms = Date.parse(moment);
    return Number.isNaN(ms) ? moment : formatMoment(ms, nowMs);
  });
}
