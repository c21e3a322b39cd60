// The figures behind a time line: what is drawn in each column of pixels, and which stretch of time a
// pointer has marked.

import { formatValue } from '../flamegraph/values';
import type { Timeline } from './api';
import type { Range } from './time';

/** Height of each column, as a rate (value a second); NaN where there is nothing. */
export function columnsOf(timeline: Timeline, range: Range, widthPx: number): Float64Array {
  const columns = new Float64Array(widthPx).fill(NaN);
  if (timeline.stepMs <= 0 || widthPx <= 0) return columns;
  const scale = widthPx / (range.toMs - range.fromMs);
  for (const { ms, value } of timeline.points) {
    const rate = value / (timeline.stepMs / 1e3);
    const left = Math.max(0, Math.floor((ms - range.fromMs) * scale));
    const right = Math.min(widthPx, Math.max(left + 1, Math.floor((ms + timeline.stepMs - range.fromMs) * scale)));
    for (let column = left; column < right; column++) {
      // Where steps are narrower than a pixel the highest is seen: a spike must not disappear.
      if (!(columns[column]! >= rate)) columns[column] = rate;
    }
  }
  return columns;
}

const NS: Readonly<Record<string, number>> = { nanoseconds: 1e9, microseconds: 1e6, milliseconds: 1e3, seconds: 1 };

/** A rate as a person reads it. Time a second is how many threads were at it on average: cores, of CPU time. */
export function formatRate(rate: number, kind: string, unit: string): string {
  const perSecond = NS[unit];
  if (perSecond === undefined) return `${formatValue(rate, unit, kind)}/s`;
  const busy = rate / perSecond;
  const digits = busy >= 100 ? busy.toFixed(0) : busy >= 10 ? busy.toFixed(1) : busy >= 0.1 || busy === 0 ? busy.toFixed(2) : busy.toPrecision(2);
  return `${digits} ${kind === 'cpu' ? 'cores' : 'threads'}`;
}

/** The highest rate, at least a little more than nothing. */
export function highest(columns: Float64Array): number {
  let high = 0;
  for (const rate of columns) if (rate > high) high = rate;
  return high;
}

/** How near, in pixels, one must be to an edge of the brush to move it. */
const GRIP_PX = 7;

/** Where a brush that begins at `x` is held: at the other edge if one edge is grasped. */
export function anchorOf(x: number, brush: Range | undefined, range: Range, widthPx: number): number {
  if (brush === undefined) return x;
  const scale = widthPx / (range.toMs - range.fromMs);
  const [left, right] = [(brush.fromMs - range.fromMs) * scale, (brush.toMs - range.fromMs) * scale];
  if (Math.abs(x - left) <= GRIP_PX) return right;
  if (Math.abs(x - right) <= GRIP_PX) return left;
  return x;
}

/** What was marked between two places, inside the range; `undefined` if the pointer hardly moved. */
export function brushBetween(anchor: number, x: number, range: Range, widthPx: number): Range | undefined {
  if (Math.abs(x - anchor) < 3 || widthPx <= 0) return undefined;
  const timeAt = (place: number): number => {
    const inside = Math.max(0, Math.min(widthPx, place));
    return range.fromMs + (inside / widthPx) * (range.toMs - range.fromMs);
  };
  const [fromMs, toMs] = [timeAt(Math.min(anchor, x)), timeAt(Math.max(anchor, x))];
  return toMs - fromMs >= 500 ? { fromMs, toMs } : undefined;
}

/** The brush of the keyboard: moved by steps, or made longer at its end. */
export function movedBrush(brush: Range | undefined, step: number, longer: boolean, range: Range): Range {
  const tenth = (range.toMs - range.fromMs) / 20;
  const now = brush ?? { fromMs: range.toMs - 4 * tenth, toMs: range.toMs };
  if (brush === undefined) return now;
  if (longer) return { fromMs: now.fromMs, toMs: Math.max(now.fromMs + tenth, Math.min(range.toMs, now.toMs + step * tenth)) };
  const by = Math.max(range.fromMs - now.fromMs, Math.min(range.toMs - now.toMs, step * tenth));
  return { fromMs: now.fromMs + by, toMs: now.toMs + by };
}
