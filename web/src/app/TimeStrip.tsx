// The selected value by time, as bars on a canvas, and a brush to mark a part of it.

import type { JSX } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { Theme } from '../flamegraph/colours';
import { FONT } from '../flamegraph/painter';
import type { Timeline } from './api';
import type { Side } from './selection';
import { formatMoment, formatRange, formatSpan, ticksOf, type Range } from './time';
import { anchorOf, brushBetween, columnsOf, formatRate, highest, movedBrush } from './timeline';

const TICK_CSS_PX = 110;
const AXIS_CSS_PX = 15;

export function TimeStrip(props: {
  readonly side: Side;
  /** Whether there is another strip, so that the two must be told apart. */
  readonly paired: boolean;
  readonly timeline: Timeline | undefined;
  readonly range: Range;
  readonly brush: Range | undefined;
  readonly kind: string;
  readonly unit: string;
  readonly nowMs: number;
  readonly theme: Theme;
  readonly busy: boolean;
  readonly onBrush: (brush: Range | undefined) => void;
}): JSX.Element {
  const { timeline, range, brush, side, kind, unit, nowMs, theme } = props;
  const place = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [height, setHeight] = useState(0);
  const [pointerX, setPointerX] = useState<number | undefined>(undefined);
  const [anchor, setAnchor] = useState<number | undefined>(undefined);
  const density = Math.max(1, window.devicePixelRatio);

  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const measure = (): void => {
      setWidth(element.clientWidth);
      setHeight(element.clientHeight);
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  const marking = anchor !== undefined && pointerX !== undefined ? brushBetween(anchor, pointerX, range, width) : undefined;
  const shown = anchor === undefined ? brush : (marking ?? brush);
  const columns = useMemo(
    () => (timeline === undefined ? new Float64Array(0) : columnsOf(timeline, range, Math.round(width * density))),
    [timeline, range.fromMs, range.toMs, width, density],
  );
  const peak = useMemo(() => highest(columns), [columns]);

  useLayoutEffect(() => {
    const element = canvas.current;
    if (element === null || width === 0 || height === 0) return;
    element.width = Math.round(width * density);
    element.height = Math.round(height * density);
    const surface = element.getContext('2d');
    if (surface === null) return;
    const style = getComputedStyle(element);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const xOf = (ms: number): number => ((ms - range.fromMs) / (range.toMs - range.fromMs)) * element.width;
    const axis = Math.round(AXIS_CSS_PX * density);
    const room = element.height - axis;
    surface.clearRect(0, 0, element.width, element.height);

    surface.font = `${Math.round(10.5 * density)}px ${FONT}`;
    surface.textBaseline = 'middle';
    const days = range.toMs - range.fromMs > 86_400e3;
    for (const tick of ticksOf(range, (width / TICK_CSS_PX) | 0)) {
      const x = Math.round(xOf(tick));
      surface.fillStyle = colour('--border');
      surface.fillRect(x, 0, Math.max(1, Math.round(density / 2)), room + 3 * density);
      surface.fillStyle = colour('--muted');
      const text = formatMoment(tick, days ? nowMs : tick, range.toMs - range.fromMs < 600e3);
      if (x + surface.measureText(text).width < element.width) surface.fillText(text, x + 3 * density, element.height - axis / 2 + density);
    }

    const [from, to] = shown === undefined ? [0, element.width] : [xOf(shown.fromMs), xOf(shown.toMs)];
    const scale = peak > 0 ? (room - 4 * density) / peak : 0;
    const [inside, outside] = [colour(side === 'before' ? '--side-a' : '--side-b'), colour('--faint')];
    for (let x = 0; x < columns.length; x++) {
      const rate = columns[x]!;
      if (!(rate > 0)) continue;
      const bar = Math.max(1, Math.round(rate * scale));
      surface.fillStyle = x >= from && x < to ? inside : outside;
      surface.fillRect(x, room - bar, 1, bar);
    }
    surface.fillStyle = colour('--border');
    surface.fillRect(0, room, element.width, Math.max(1, Math.round(density / 2)));
    if (shown !== undefined) {
      surface.fillStyle = inside;
      surface.globalAlpha = 0.12;
      surface.fillRect(from, 0, to - from, room);
      surface.globalAlpha = 1;
      for (const edge of [from, to]) surface.fillRect(Math.round(edge - density), 0, Math.round(2 * density), room);
    }
  }, [columns, peak, shown?.fromMs, shown?.toMs, range.fromMs, range.toMs, width, height, density, side, theme]);

  const xOfEvent = (event: PointerEvent): number => event.clientX - (place.current?.getBoundingClientRect().left ?? 0);
  const said = shown === undefined ? 'all of it' : formatRange(shown, nowMs);
  const pointedMs = pointerX === undefined || width === 0 ? undefined : range.fromMs + (pointerX / width) * (range.toMs - range.fromMs);
  const pointedRate = pointerX === undefined ? NaN : (columns[Math.floor(pointerX * density)] ?? NaN);
  return (
    <div
      ref={place}
      class={`strip ${side}`}
      role="group"
      tabIndex={0}
      aria-label={`Time line${props.paired ? (side === 'before' ? ' of A, the baseline' : ' of B') : ''}: ${formatRange(range, nowMs)}, at most ${formatRate(peak, kind, unit)}; marked: ${said}. Arrows move the mark, with Shift its end; Escape removes it.`}
      aria-busy={props.busy}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        const x = xOfEvent(event);
        setAnchor(anchorOf(x, brush, range, width));
        setPointerX(x);
      }}
      onPointerMove={(event) => setPointerX(xOfEvent(event))}
      onPointerLeave={() => anchor === undefined && setPointerX(undefined)}
      onPointerCancel={() => setAnchor(undefined)}
      onPointerUp={() => {
        if (anchor === undefined) return;
        setAnchor(undefined);
        // A mere click takes the mark away.
        if (marking !== undefined || brush !== undefined) props.onBrush(marking);
      }}
      onKeyDown={(event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (step !== undefined) {
          event.preventDefault();
          event.stopPropagation();
          props.onBrush(movedBrush(brush, step, event.shiftKey, range));
        } else if (event.key === 'Escape' && brush !== undefined) {
          event.stopPropagation();
          props.onBrush(undefined);
        }
      }}
    >
      <canvas ref={canvas} aria-hidden="true" />
      {peak > 0 && <span class="peak">{formatRate(peak, kind, unit)}</span>}
      {timeline !== undefined && peak === 0 && <span class="nothing">no samples in this range</span>}
      {pointedMs !== undefined && (
        <span class="pointed" style={{ left: `${pointerX}px`, translate: pointerX! > width / 2 ? 'calc(-100% - 6px) 0' : '6px 0' }}>
          {marking !== undefined
            ? `${formatRange(marking, nowMs)} · ${formatSpan(marking.toMs - marking.fromMs)}`
            : `${formatMoment(pointedMs, nowMs)}${Number.isNaN(pointedRate) ? '' : ` · ${formatRate(pointedRate, kind, unit)}`}`}
        </span>
      )}
    </div>
  );
}
