// Every request as a dot: when it began, and how long it took. A dot leads to its trace, a frame that is drawn
// marks a part.

import type { JSX } from 'preact';
import { useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { Theme } from '../flamegraph/colours';
import { FONT } from '../flamegraph/painter';
import { useElementSize } from '../flamegraph/useElementSize';
import { formatValue } from '../flamegraph/values';
import {
  OUTCOMES,
  OUTCOME_NAMES,
  axesOf,
  durationTicks,
  isMarked,
  lengthNs,
  msAt,
  nearest,
  nsAt,
  outcomeOf,
  xOf,
  yOf,
  type Marked,
  type Outcome,
  type Requests,
} from '../requests/scatter';
import { formatMoment, ticksOf, type Range } from './time';

const AXIS_LEFT = 54;
const AXIS_BOTTOM = 18;
const EDGE = 8;
const TICK_CSS_PX = 110;
/** How near one must be to a dot. */
const REACH_PX = 8;

interface Point {
  readonly x: number;
  readonly y: number;
}

export function Scatter(props: {
  readonly requests: Requests;
  readonly range: Range;
  readonly marked: Marked | undefined;
  /** Pointed at elsewhere; -1 for none. */
  readonly pointed: number;
  readonly nowMs: number;
  readonly theme: Theme;
  readonly onMark: (marked: Marked | undefined) => void;
  readonly onOpen: (index: number) => void;
}): JSX.Element {
  const { requests, range, marked, nowMs, theme } = props;
  const place = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height, density } = useElementSize(place);
  const [anchor, setAnchor] = useState<Point | undefined>(undefined);
  const [pointer, setPointer] = useState<Point | undefined>(undefined);
  const [current, setCurrent] = useState(-1);

  const axes = useMemo(
    () => axesOf(requests, range.fromMs, range.toMs, nowMs, Math.max(1, width - AXIS_LEFT - EDGE), Math.max(1, height - AXIS_BOTTOM - EDGE)),
    [requests, range.fromMs, range.toMs, nowMs, width, height],
  );
  const markedBetween = (one: Point, other: Point): Marked | undefined => {
    if (Math.abs(one.x - other.x) < 4 && Math.abs(one.y - other.y) < 4) return undefined;
    return {
      fromMs: msAt(axes, Math.min(one.x, other.x)),
      toMs: msAt(axes, Math.max(one.x, other.x)),
      minNs: nsAt(axes, Math.max(one.y, other.y)),
      maxNs: nsAt(axes, Math.min(one.y, other.y)),
    };
  };
  const drawn = anchor !== undefined && pointer !== undefined ? markedBetween(anchor, pointer) : undefined;
  const shown = drawn ?? marked;
  const hovered = anchor === undefined && pointer !== undefined ? nearest(requests, axes, nowMs, pointer.x, pointer.y, REACH_PX) : -1;
  const told = hovered >= 0 ? hovered : current < requests.count ? current : -1;
  const ringed = told >= 0 ? told : props.pointed;

  useLayoutEffect(() => {
    const element = canvas.current;
    if (element === null || width === 0 || height === 0) return;
    element.width = Math.round(width * density);
    element.height = Math.round(height * density);
    const surface = element.getContext('2d');
    if (surface === null) return;
    const style = getComputedStyle(element);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    surface.setTransform(density, 0, 0, density, AXIS_LEFT * density, EDGE * density);
    surface.font = `10.5px ${FONT}`;
    surface.textBaseline = 'middle';

    for (const tick of durationTicks(axes)) {
      const y = Math.round(yOf(axes, tick));
      surface.fillStyle = colour('--border');
      surface.fillRect(0, y, axes.width, 1 / density);
      surface.fillStyle = colour('--muted');
      surface.textAlign = 'right';
      // Powers of ten stay such: no minutes.
      surface.fillText(tick > 1e9 ? `${tick / 1e9} s` : formatValue(tick, 'nanoseconds'), -6, y);
    }
    surface.textAlign = 'left';
    const days = range.toMs - range.fromMs > 86_400e3;
    for (const tick of ticksOf(range, (axes.width / TICK_CSS_PX) | 0)) {
      const x = Math.round(xOf(axes, tick));
      surface.fillStyle = colour('--border');
      surface.fillRect(x, 0, 1 / density, axes.height + 3);
      surface.fillStyle = colour('--muted');
      const text = formatMoment(tick, days ? nowMs : tick, range.toMs - range.fromMs < 600e3);
      if (x + surface.measureText(text).width < axes.width) surface.fillText(text, x + 3, axes.height + AXIS_BOTTOM / 2 + 2);
    }

    if (shown !== undefined) {
      const [left, right] = [xOf(axes, shown.fromMs), xOf(axes, shown.toMs)];
      const [top, bottom] = [yOf(axes, shown.maxNs), yOf(axes, shown.minNs)];
      surface.fillStyle = colour('--accent');
      surface.globalAlpha = 0.1;
      surface.fillRect(left, top, right - left, bottom - top);
      surface.globalAlpha = 1;
      surface.strokeStyle = colour('--accent');
      surface.lineWidth = 1;
      surface.strokeRect(left, top, right - left, bottom - top);
    }
    const colours = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, colour(`--outcome-${outcome}`)])) as Record<Outcome, string>;
    const dot = (index: number, radius: number): void => {
      surface.beginPath();
      surface.arc(xOf(axes, requests.startMs[index]!), yOf(axes, lengthNs(requests, index, nowMs)), radius, 0, 2 * Math.PI);
    };
    // What went wrong is drawn last, so that it lies above.
    for (const outcome of OUTCOMES) {
      surface.fillStyle = colours[outcome];
      surface.strokeStyle = colours[outcome];
      surface.lineWidth = 1.5;
      for (let index = 0; index < requests.count; index++) {
        if (outcomeOf(requests, index) !== outcome) continue;
        surface.globalAlpha = shown !== undefined && !isMarked(requests, index, shown, nowMs) ? 0.15 : outcome === 'ok' ? 0.6 : 0.9;
        dot(index, outcome === 'open' ? 3.5 : 3);
        // Hollow as long as it runs: it is on its way up.
        if (outcome === 'open') surface.stroke();
        else surface.fill();
      }
    }
    surface.globalAlpha = 1;
    if (ringed >= 0) {
      surface.strokeStyle = colour('--text');
      surface.lineWidth = 2;
      dot(ringed, 6);
      surface.stroke();
    }
    element.dataset.dots = String(requests.count);
  }, [requests, axes, shown?.fromMs, shown?.toMs, shown?.minNs, shown?.maxNs, ringed, density, theme, nowMs]);

  const pointOf = (event: PointerEvent): Point => {
    const box = place.current?.getBoundingClientRect();
    return { x: event.clientX - (box?.left ?? 0) - AXIS_LEFT, y: event.clientY - (box?.top ?? 0) - EDGE };
  };
  const byTime = useMemo(
    () => Array.from({ length: requests.count }, (_, index) => index).sort((one, other) => requests.startMs[one]! - requests.startMs[other]!),
    [requests],
  );
  const step = (by: number): void => {
    const at = byTime.indexOf(current);
    const next = at < 0 ? (by > 0 ? 0 : byTime.length - 1) : Math.max(0, Math.min(byTime.length - 1, at + by));
    setCurrent(byTime[next] ?? -1);
  };
  const present = useMemo(() => {
    const seen = new Set<Outcome>();
    for (let index = 0; index < requests.count; index++) seen.add(outcomeOf(requests, index));
    return OUTCOMES.filter((outcome) => seen.has(outcome));
  }, [requests]);
  const sentence = (index: number): string =>
    `${requests.name[index]!}, ${outcomeText(requests, index)}, ${durationText(requests, index, nowMs)}, ${serviceText(requests, index)}, ${formatMoment(requests.startMs[index]!, nowMs)}`;
  return (
    <div class="scatter-whole">
      <ul class="outcomes" aria-label="Colours">
        {present.map((outcome) => (
          <li key={outcome}>
            <span class={`outcome ${outcome}`} aria-hidden="true" />
            {OUTCOME_NAMES[outcome]}
          </li>
        ))}
        {requests.truncated && <li class="warning">only the newest {requests.count.toLocaleString('en')}</li>}
      </ul>
      <div
        ref={place}
        class="scatter"
        role="listbox"
        tabIndex={0}
        aria-label={`${requests.count} requests by time and duration. Left and right go from one to the next, Enter opens its trace, Escape removes the mark.`}
        aria-activedescendant={current >= 0 && current < requests.count ? 'scatter-current' : undefined}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          setAnchor(pointOf(event));
          setPointer(pointOf(event));
        }}
        onPointerMove={(event) => setPointer(pointOf(event))}
        onPointerLeave={() => anchor === undefined && setPointer(undefined)}
        onPointerCancel={() => setAnchor(undefined)}
        onPointerUp={(event) => {
          if (anchor === undefined) return;
          setAnchor(undefined);
          const at = pointOf(event);
          const between = markedBetween(anchor, at);
          if (between !== undefined) return props.onMark(between);
          const hit = nearest(requests, axes, nowMs, at.x, at.y, REACH_PX);
          if (hit >= 0) props.onOpen(hit);
          else if (marked !== undefined) props.onMark(undefined);
        }}
        onKeyDown={(event) => {
          const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
          if (by !== undefined) step(by);
          else if (event.key === 'Enter' && current >= 0 && current < requests.count) props.onOpen(current);
          else if (event.key === 'Escape' && marked !== undefined) props.onMark(undefined);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
        onBlur={() => setCurrent(-1)}
      >
        <canvas ref={canvas} aria-hidden="true" style={{ cursor: hovered >= 0 ? 'pointer' : 'crosshair' }} />
        {current >= 0 && current < requests.count && (
          <div id="scatter-current" class="visually-hidden" role="option" aria-selected="true">
            {sentence(current)}
          </div>
        )}
        {told >= 0 && (
          <div class="tooltip" aria-hidden="true" style={tooltipPlace(axes.width, xOf(axes, requests.startMs[told]!), yOf(axes, lengthNs(requests, told, nowMs)))}>
            <div class="tooltip-name">{requests.name[told]}</div>
            <div>
              <span class={`outcome ${outcomeOf(requests, told)}`} /> {outcomeText(requests, told)} · {durationText(requests, told, nowMs)}
            </div>
            <div class="tooltip-where">
              {serviceText(requests, told)} · {formatMoment(requests.startMs[told]!, nowMs)}
            </div>
          </div>
        )}
      </div>
    </div>
  );
}

function tooltipPlace(width: number, x: number, y: number): Record<string, string> {
  const left = x + AXIS_LEFT;
  return {
    top: `${y + EDGE + 12}px`,
    ...(x > width / 2 ? { right: `${width + AXIS_LEFT + EDGE - left + 12}px` } : { left: `${left + 12}px` }),
  };
}

export function serviceText(requests: Requests, index: number): string {
  const service = requests.service[index]!;
  return service === '' ? 'unknown service' : service;
}

export function outcomeText(requests: Requests, index: number): string {
  const code = requests.statusCode[index]!;
  const outcome = outcomeOf(requests, index);
  return code >= 0 ? String(code) : OUTCOME_NAMES[outcome];
}

export function durationText(requests: Requests, index: number, nowMs: number): string {
  const length = formatValue(lengthNs(requests, index, nowMs), 'nanoseconds');
  return Number.isNaN(requests.durationNs[index]!) ? `${length} so far` : length;
}
