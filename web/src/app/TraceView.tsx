// One trace: its spans as a water-fall, what is known of the selected one, and below both what it ran.

import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { Command } from '../flamegraph/keyboard';
import { formatShare, formatValue } from '../flamegraph/values';
import type { Trace } from '../requests/otlp';
import { hasBelow, ownNs, rowsOf, shownRows, type Row } from '../requests/waterfall';
import { serverNowMs } from './api';
import type { PageProps } from './Bar';
import { Failure } from './Failure';
import { useLoaded } from './loaded';
import { Message } from './Message';
import { fetchTrace } from './requestsapi';
import { serviceColour } from './servicecolour';
import { SpanPanel } from './SpanPanel';
import { SpanStage } from './SpanStage';
import { formatMoment } from './time';

/** Rows beyond these are added by so many. */
const PAGE_ROWS = 500;
/** An open trace is asked for again so often. */
const OPEN_MS = 2_000;

export function TraceView(
  props: PageProps & { readonly nowMs: number; readonly tick: number; readonly explorerKeys: { current: ((command: Command) => void) | undefined } },
): JSX.Element {
  const { state, change } = props;
  const nowMs = serverNowMs();
  const [again, setAgain] = useState(0);
  const loaded = useLoaded(state.trace, again, (signal) => fetchTrace(state.trace, signal));
  const trace = loaded.key === state.trace ? loaded.value : undefined;
  const rows = useMemo(() => (trace === undefined ? [] : rowsOf(trace)), [trace]);
  const isOpen = rows.some(({ span }) => span.endNs === undefined);
  useEffect(() => {
    if (!isOpen) return;
    const timer = window.setInterval(() => document.hidden || setAgain((before) => before + 1), OPEN_MS);
    return () => window.clearInterval(timer);
  }, [isOpen]);
  const selected = rows.find(({ span }) => span.id === state.span) ?? rows[0];

  if (trace === undefined || selected === undefined) props.explorerKeys.current = undefined;
  if (trace === undefined && loaded.problem !== undefined) {
    return (
      <Failure problem={loaded.problem} what="such trace" onAfresh={() => change({ trace: '', span: '' })}>
        <button type="button" onClick={() => change({ trace: '', span: '' })}>
          All requests
        </button>
      </Failure>
    );
  }
  if (trace === undefined || selected === undefined) {
    return trace === undefined ? <Message tone="busy" title="Loading the trace" /> : <Message title="An empty trace" text="Nothing of it is kept any more." />;
  }
  const root = rows[0]!;
  const errors = trace.spans.filter(({ isError }) => isError).length;
  const open = trace.spans.filter(({ endNs }) => endNs === undefined).length;
  const services = new Set(trace.spans.map(({ service }) => service)).size;
  const choose = (id: string): void => {
    if (id !== selected.span.id) change({ span: id, zoom: '', selected: '', search: '' }, 'replace');
  };
  return (
    <>
      <div class="summary trace-summary">
        <button type="button" class="link" title="Back to all requests (Esc)" onClick={() => change({ trace: '', span: '', zoom: '', selected: '' })}>
          ‹ All requests
        </button>
        <strong>{root.span.name}</strong>
        <span>{root.span.service || 'unknown service'}</span>
        <span>{open > 0 ? `still running, ${formatValue(Math.max(trace.durationNs, (nowMs - trace.startUnixMs) * 1e6), 'nanoseconds')} so far` : formatValue(trace.durationNs, 'nanoseconds')}</span>
        <span>{formatMoment(trace.startUnixMs, nowMs)}</span>
        <span>
          {trace.spans.length} {trace.spans.length === 1 ? 'span' : 'spans'} of {services} {services === 1 ? 'service' : 'services'}
        </span>
        {errors > 0 && <span class="failed">{errors === 1 ? '1 error' : `${errors} errors`}</span>}
        {trace.broken > 0 && <span class="warning">{trace.broken} spans could not be read</span>}
        <span class="muted id">{trace.id}</span>
      </div>
      <div class="trace">
        <Waterfall trace={trace} rows={rows} selected={selected} nowMs={nowMs} theme={props.theme} onSelect={choose} onBack={() => change({ trace: '', span: '' })} />
        <SpanPanel trace={trace} row={selected} own={ownNs(rows, rows.indexOf(selected), open > 0 ? (nowMs - trace.startUnixMs) * 1e6 : trace.durationNs)} />
      </div>
      <SpanStage {...props} traceId={selected.span.traceId} span={selected.span} />
    </>
  );
}

function Waterfall(props: {
  readonly trace: Trace;
  readonly rows: readonly Row[];
  readonly selected: Row;
  readonly nowMs: number;
  readonly theme: PageProps['theme'];
  readonly onSelect: (id: string) => void;
  readonly onBack: () => void;
}): JSX.Element {
  const { trace, rows, selected, theme } = props;
  const [collapsed, setCollapsed] = useState<ReadonlySet<string>>(new Set());
  const [most, setMost] = useState(PAGE_ROWS);
  const tree = useRef<HTMLDivElement>(null);
  const shown = shownRows(rows, collapsed);
  // What still runs has no end, and reaches to the end of the picture.
  const open = rows.some(({ span }) => span.endNs === undefined);
  const soFarNs = Math.max(trace.durationNs, (props.nowMs - trace.startUnixMs) * 1e6);
  const lengthNs = Math.max(1, open ? soFarNs : trace.durationNs);
  const share = (ns: number): string => `${(100 * ns) / lengthNs}%`;
  useEffect(() => {
    tree.current?.querySelector('[aria-selected=true]')?.scrollIntoView({ block: 'nearest' });
  }, [selected]);
  const toggle = (id: string, close: boolean): void => {
    const next = new Set(collapsed);
    if (close) next.add(id);
    else next.delete(id);
    setCollapsed(next);
  };
  const onKey = (event: KeyboardEvent): void => {
    const at = shown.indexOf(selected);
    const go = (place: number): void => props.onSelect(shown[Math.max(0, Math.min(shown.length - 1, place))]!.span.id);
    switch (event.key) {
      case 'ArrowDown':
        go(at + 1);
        break;
      case 'ArrowUp':
        go(at - 1);
        break;
      case 'Home':
        go(0);
        break;
      case 'End':
        go(shown.length - 1);
        break;
      case 'ArrowLeft':
        if (hasBelow(rows, selected) && !collapsed.has(selected.span.id)) toggle(selected.span.id, true);
        else if (selected.parent === 'here') props.onSelect(selected.span.parentId);
        break;
      case 'ArrowRight':
        if (collapsed.has(selected.span.id)) toggle(selected.span.id, false);
        else if (hasBelow(rows, selected)) go(at + 1);
        break;
      case 'Enter':
        document.querySelector<HTMLElement>('.span-stage .flamegraph-scroller')?.focus();
        break;
      case 'Escape':
        props.onBack();
        break;
      default:
        return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      ref={tree}
      class="waterfall"
      role="tree"
      tabIndex={0}
      aria-label="Spans. Up and down select, left and right close and open, Enter goes to what the span ran, Escape to all requests."
      aria-activedescendant={`span-${selected.span.id}`}
      onKeyDown={onKey}
    >
      {shown.slice(0, most).map((row) => {
        const { span } = row;
        const endNs = span.endNs ?? lengthNs;
        const colour = serviceColour(span.service, theme);
        const length = span.endNs === undefined ? 'still running' : formatValue(span.endNs - span.startNs, 'nanoseconds');
        // Behind the bar if there is room, else before it, else on it.
        const place = endNs / lengthNs < 0.82 ? 'behind' : span.startNs / lengthNs > 0.18 ? 'before' : 'inside';
        return (
          <div
            key={span.id}
            id={`span-${span.id}`}
            class={`span-row${span.isError ? ' failed' : ''}`}
            role="treeitem"
            aria-level={row.depth + 1}
            aria-selected={row === selected}
            aria-expanded={hasBelow(rows, row) ? !collapsed.has(span.id) : undefined}
            aria-label={`${span.name}, ${span.service || 'unknown service'}, ${span.kind}, ${length}${span.isError ? ', error' : ''}`}
            onClick={() => props.onSelect(span.id)}
          >
            <span class="span-name" style={{ paddingLeft: `${Math.min(row.depth, 24) * 14}px` }} title={`${span.name} · ${span.service || 'unknown service'} · ${span.kind}`}>
              <span
                class={`twist${hasBelow(rows, row) ? (collapsed.has(span.id) ? ' closed' : ' opened') : ''}`}
                onClick={(event) => {
                  if (!hasBelow(rows, row)) return;
                  event.stopPropagation();
                  toggle(span.id, !collapsed.has(span.id));
                }}
              />
              <span class="swatch" style={{ background: colour }} />
              {span.isError && <span class="failed" aria-hidden="true">! </span>}
              <span class="service-name">{span.service || 'unknown service'}</span> <span>{span.name}</span>
              {span.kind !== 'server' && <span class="muted"> {span.kind}</span>}
              {row.parent === 'elsewhere' && <span class="muted" title="Its parent is not kept here"> ↥</span>}
            </span>
            <span class="span-time">
              <span
                class={`span-bar${span.endNs === undefined ? ' open' : ''}`}
                style={{ left: share(span.startNs), width: `max(2px, ${share(endNs - span.startNs)})`, '--colour': colour }}
              />
              <span
                class={`span-length ${place}`}
                style={place === 'behind' ? { left: share(endNs) } : { right: place === 'before' ? share(lengthNs - span.startNs) : '4px' }}
              >
                {length}
                {span.endNs !== undefined && row.depth > 0 ? <span class="muted"> {formatShare(span.endNs - span.startNs, lengthNs)}</span> : ''}
              </span>
            </span>
          </div>
        );
      })}
      {shown.length > most && (
        <p class="more">
          <button type="button" onClick={() => setMost(most + PAGE_ROWS)}>
            Show {Math.min(PAGE_ROWS, shown.length - most)} more of {shown.length.toLocaleString('en')}
          </button>
        </p>
      )}
    </div>
  );
}
