// The page: what is chosen, from the URL; the bar to choose with and the time lines; and below it the
// graph, or what is the matter with it.

import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { ColumnarFile } from '../flamegraph/columnar';
import type { Theme } from '../flamegraph/colours';
import { commandOf, type Command } from '../flamegraph/keyboard';
import type { Direction } from '../flamegraph/view';
import { fetchGraph, fetchServices, fetchTimeline, fetchTypes, serverNowMs, type Problem, type Timeline } from './api';
import { Downloads } from './Downloads';
import { Explorer } from './Explorer';
import { Filters } from './Filters';
import flame from './flame.svg';
import { Help } from './Help';
import { useLoaded, useTicks, type Loaded } from './loaded';
import { Message } from './Message';
import {
  brushOf,
  firstComparison,
  graphPath,
  isLive,
  rangeFields,
  refreshMs,
  selectors,
  serviceOf,
  shifted,
  FILTERS,
  type Side,
} from './selection';
import { ServicePicker } from './ServicePicker';
import { initialTheme, rememberTheme } from './theme';
import { followsNow, formatBrush, formatMoment, formatRange, parseBrush, rangeOf, withLocalTimes } from './time';
import { TimePicker, faceOfRange } from './TimePicker';
import { TimeStrip } from './TimeStrip';
import { DEFAULT_STATE, type UrlState } from './urlstate';
import { useUrlState, type ChangeState } from './useUrlState';

/** How often the first samples are looked for. */
const FIRST_SAMPLES_MS = 2_000;

const TYPE_NAMES: Readonly<Record<string, string>> = {
  cpu: 'CPU',
  samples: 'Samples',
  offcpu: 'Off CPU',
  wall: 'Wall clock',
  lock: 'Locks',
  memory: 'Memory',
  gpu: 'GPU',
};

type OpenPart = 'service' | 'baseService' | 'time' | 'filters' | 'downloads' | 'help' | '';

export function App(): JSX.Element {
  const [state, change] = useUrlState();
  const [theme, setTheme] = useState<Theme>(initialTheme);
  const [openPart, setOpenPart] = useState<OpenPart>('');
  const explorerKeys = useRef<((command: Command) => void) | undefined>(undefined);
  const open = (part: OpenPart) => (isOpen: boolean) => setOpenPart(isOpen ? part : '');

  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    rememberTheme(theme);
  }, [theme]);

  const isRaw = state.source !== '';
  const compared = isRaw ? state.base !== '' : state.compare === 'on';
  const live = isLive(state);
  // A server that has just started has no samples yet: they are waited for, even if the page stands still.
  const [isWaiting, setWaiting] = useState(false);
  const [ticks] = useTicks(live || isWaiting, isWaiting ? FIRST_SAMPLES_MS : refreshMs(state));
  const [asked, setAsked] = useState(0);
  const tick = ticks + asked;

  // The graph is asked for first: the server brings itself up to the present for whoever comes first.
  const graphs = {
    after: useGraph(isRaw ? state.source : graphPath(state, 'after'), state.brush === '' ? tick : asked),
    before: useGraph(
      !compared ? undefined : isRaw ? state.base : graphPath(state, 'before'),
      state.baseBrush === '' ? tick : asked,
    ),
  };
  const timelines = {
    after: useTimeline(state, 'after', !isRaw, tick),
    before: useTimeline(state, 'before', !isRaw && compared, tick),
  };
  // Services are looked up anew when somebody looks at them; types, when there are none.
  const listing = openPart === 'service' || openPart === 'baseService';
  const range = rangeFields(state);
  const services = useLoaded(isRaw ? undefined : range.toString(), isWaiting || listing ? tick : asked, (signal) => fetchServices(range, signal));
  const types = useLoaded(isRaw ? undefined : range.toString(), isWaiting ? tick : asked, (signal) => fetchTypes(range, signal));
  const nothingYet = !isRaw && services.value?.length === 0 && state.service === '' && followsNow(state.from, state.to);
  useEffect(() => setWaiting(nothingYet), [nothingYet]);

  const nowMs = useMemo(serverNowMs, [tick, state, services.value]);
  const extent = rangeOf(state.from, state.to, nowMs);
  const file = graphs.after.value;
  const type = types.value?.find(({ name }) => name === state.type) ?? types.value?.[0];
  const kind = file?.kind ?? type?.name ?? '';
  const unit = file?.unit ?? type?.unit ?? '';

  const obey = (command: Command): void => {
    switch (command.do) {
      case 'service':
        return setOpenPart('service');
      case 'time':
        return setOpenPart('time');
      case 'download':
        return setOpenPart('downloads');
      case 'help':
        return setOpenPart(openPart === 'help' ? '' : 'help');
      case 'live':
        if (!followsNow(state.from, state.to)) return change({ from: DEFAULT_STATE.from, to: '', brush: '', live: 'on' });
        return change({ live: state.live === 'on' ? 'off' : 'on' }, 'replace');
      case 'refresh':
        return setAsked(asked + 1);
      case 'compare':
        if (compared) return change({ compare: 'off', baseBrush: '', baseService: '', base: '' });
        return isRaw ? undefined : change(firstComparison(state, nowMs, firstValueMs(timelines.after.value)));
      case 'shift':
        return change(shifted(state, command.step, nowMs));
      default:
        return undefined;
    }
  };
  useGlobalKeys((command) => (explorerKeys.current ?? obey)(command), state.direction);

  const picker = (side: Side): JSX.Element => (
    <ServicePicker
      label={!compared ? 'Service' : side === 'before' ? 'Service of A, the baseline' : 'Service of B'}
      services={services.value ?? []}
      value={serviceOf(state, side)}
      open={openPart === (side === 'after' ? 'service' : 'baseService')}
      onOpen={open(side === 'after' ? 'service' : 'baseService')}
      onPick={(service) => {
        setOpenPart('');
        if (side === 'before') return change({ baseService: service === state.service ? '' : service || '*' });
        // The baseline stays what it is, unless it was the same.
        return change({ service, zoom: '', selected: '', function: '' });
      }}
    />
  );
  const strip = (side: Side): JSX.Element => (
    <TimeStrip
      side={side}
      paired={compared}
      timeline={timelines[side].value}
      range={extent}
      brush={parseBrush(brushOf(state, side))}
      kind={kind}
      unit={unit}
      nowMs={nowMs}
      theme={theme}
      busy={timelines[side].busy}
      onBrush={(brush) => {
        const text = brush === undefined ? '' : formatBrush(brush);
        change(side === 'after' ? { brush: text } : { baseBrush: text }, 'push');
      }}
    />
  );

  return (
    <div class="page">
      <header class="bar">
        <a class="brand" href="#" title="Start afresh">
          <img src={flame} width="22" height="22" alt="" />
          <span>spanflame</span>
        </a>
        {!isRaw && (
          <>
            {!compared && picker('after')}
            <select
              class="type"
              aria-label="What is measured"
              title="What is measured"
              value={state.type === '' ? type?.name : state.type}
              onChange={(event) => change({ type: event.currentTarget.value, zoom: '', selected: '' })}
            >
              {(types.value ?? []).map(({ name }) => (
                <option key={name} value={name}>
                  {TYPE_NAMES[name] ?? name}
                </option>
              ))}
              {state.type !== '' && types.value?.some(({ name }) => name === state.type) !== true && (
                <option value={state.type}>{TYPE_NAMES[state.type] ?? state.type}</option>
              )}
              {state.type === '' && (types.value ?? []).length === 0 && <option value="">CPU</option>}
            </select>
            <TimePicker
              from={state.from}
              to={state.to}
              nowMs={nowMs}
              open={openPart === 'time'}
              onOpen={open('time')}
              onPick={(from, to) => {
                setOpenPart('');
                change({ from, to, brush: '', baseBrush: '' });
              }}
            />
            <LiveButton state={state} live={live} onPress={() => obey({ do: 'live' })} />
            <Filters state={state} open={openPart === 'filters'} onOpen={open('filters')} onChange={(fields) => change(fields)} />
          </>
        )}
        <div class="tools">
          {!isRaw && (
            <>
              <button
                type="button"
                aria-pressed={compared}
                title="Compare with another time or service (c)"
                onClick={() => obey({ do: 'compare' })}
              >
                Compare
              </button>
              <Downloads state={state} nowMs={nowMs} open={openPart === 'downloads'} onOpen={open('downloads')} />
            </>
          )}
          <button
            type="button"
            class="square"
            title="Light or dark"
            aria-label="Light or dark"
            onClick={() => setTheme(theme === 'dark' ? 'light' : 'dark')}
          >
            {theme === 'dark' ? '☀' : '☾'}
          </button>
          <button type="button" class="square" title="Keys (?)" aria-label="Keys" onClick={() => setOpenPart('help')}>
            ?
          </button>
        </div>
      </header>
      {!isRaw && (
        <section class="lines" aria-label="Time">
          {compared && (
            <StripRow side="before" state={state} nowMs={nowMs} change={change} picker={picker('before')}>
              {strip('before')}
            </StripRow>
          )}
          <StripRow
            side="after"
            state={state}
            nowMs={nowMs}
            change={change}
            picker={compared ? picker('after') : undefined}
          >
            {strip('after')}
          </StripRow>
        </section>
      )}
      <Stage
        graphs={graphs}
        compared={compared}
        keys={{
          after: isRaw ? state.source : graphPath(state, 'after'),
          before: isRaw ? state.base : graphPath(state, 'before'),
        }}
        nothingYet={nothingYet}
        state={state}
        change={change}
        theme={theme}
        nowMs={nowMs}
        explorerKeys={explorerKeys}
        onCommand={obey}
      />
      {openPart === 'help' && <Help onClose={() => setOpenPart('')} />}
    </div>
  );
}

function useTimeline(state: UrlState, side: Side, wanted: boolean, tick: number): Loaded<Timeline> {
  const fields = selectors(state, side, 'whole');
  return useLoaded(wanted ? fields.toString() : undefined, tick, (signal) => fetchTimeline(fields, signal));
}

/** Where a time line begins to have something, 0 if that is not known. */
function firstValueMs(timeline: Timeline | undefined): number {
  return timeline?.points.find(({ value }) => value > 0)?.ms ?? 0;
}

function useGraph(path: string | undefined, tick: number): Loaded<ColumnarFile> {
  return useLoaded(path, tick, (signal) => fetchGraph(path!, signal));
}

/** A time line with what it is of, and what its mark can be used for. */
function StripRow(props: {
  readonly side: Side;
  readonly state: UrlState;
  readonly nowMs: number;
  readonly change: ChangeState;
  readonly picker: JSX.Element | undefined;
  readonly children: ComponentChildren;
}): JSX.Element {
  const { side, state, change, nowMs } = props;
  const brush = parseBrush(brushOf(state, side));
  const clear = side === 'after' ? { brush: '' } : { baseBrush: '' };
  return (
    <div class={`line ${side}`}>
      {props.picker !== undefined && (
        <div class="line-of">
          <span class={`side ${side}`} title={side === 'before' ? 'A, the baseline' : 'B, compared with A'}>
            {side === 'before' ? 'A' : 'B'}
          </span>
          {props.picker}
          <span class="muted">{brush === undefined ? faceOfRange(state.from, state.to, nowMs) : formatRange(brush, nowMs)}</span>
        </div>
      )}
      <div class="line-strip">{props.children}</div>
      {(brush !== undefined || props.picker !== undefined) && (
        <div class={`line-tools${brush === undefined ? ' unused' : ''}`}>
          {brush !== undefined && props.picker === undefined && (
            <>
              <span class="muted">{formatRange(brush, nowMs)}</span>
              <button
                type="button"
                title="Make the marked part the whole time line"
                onClick={() => change({ from: String(brush.fromMs / 1e3), to: String(brush.toMs / 1e3), brush: '' })}
              >
                Zoom in
              </button>
            </>
          )}
          <button type="button" title="The whole time line again" aria-label="Remove the mark" onClick={() => change(clear)}>
            ×
          </button>
        </div>
      )}
    </div>
  );
}

function LiveButton(props: { readonly state: UrlState; readonly live: boolean; readonly onPress: () => void }): JSX.Element {
  const { live, state } = props;
  const title = live
    ? `Asks again every ${refreshMs(state) / 1e3} s; click to stand still (l)`
    : followsNow(state.from, state.to)
      ? 'Stands still; click to follow the present (l)'
      : 'Back to the present (l)';
  return (
    <button type="button" class={`live${live ? ' on' : ''}`} aria-pressed={live} title={title} onClick={props.onPress}>
      <span class="dot" aria-hidden="true" />
      Live
    </button>
  );
}

/** The graph or graphs, or why there are none. */
function Stage(props: {
  readonly graphs: Readonly<Record<Side, Loaded<ColumnarFile>>>;
  readonly keys: Readonly<Record<Side, string>>;
  readonly compared: boolean;
  readonly nothingYet: boolean;
  readonly state: UrlState;
  readonly change: ChangeState;
  readonly theme: Theme;
  readonly nowMs: number;
  readonly explorerKeys: { current: ((command: Command) => void) | undefined };
  readonly onCommand: (command: Command) => void;
}): JSX.Element {
  const { graphs, keys, state, change, explorerKeys } = props;
  const sides: readonly Side[] = props.compared ? ['before', 'after'] : ['after'];
  const isStale = (side: Side): boolean => graphs[side].key !== keys[side];
  // A failure that may pass takes nothing away that is there; any other does.
  const failed = sides.find((side) => {
    const { problem, value } = graphs[side];
    return problem !== undefined && (!problem.passes || value === undefined || isStale(side)) && !graphs[side].busy;
  });
  const after = graphs.after.value;
  const before = props.compared ? graphs.before.value : undefined;
  const passing = sides.map((side) => graphs[side]).find(({ problem }) => problem !== undefined);
  const isEmpty = after?.graph.total[0] === 0 && (before === undefined || before.graph.total[0] === 0);

  if (props.nothingYet && (failed === undefined || graphs[failed].problem?.kind === 'missing') && (after === undefined || isEmpty)) {
    explorerKeys.current = undefined;
    return (
      <Message tone="busy" title="No samples yet" text="A window is kept every ten seconds: the first is here in a moment. The page looks by itself." />
    );
  }
  if (failed !== undefined) {
    explorerKeys.current = undefined;
    return <Failure problem={graphs[failed].problem!} side={props.compared ? failed : undefined} state={state} change={change} />;
  }
  if (after === undefined || (props.compared && before === undefined)) {
    explorerKeys.current = undefined;
    return <Message tone="busy" title="Loading the flame graph" />;
  }
  const busy = sides.some((side) => isStale(side));
  const showsNothing = isEmpty && !busy;
  if (showsNothing) explorerKeys.current = undefined;
  return (
    <>
      <div class={`progress${busy ? ' busy' : ''}`} role="progressbar" aria-label="Loading" aria-hidden={!busy} />
      {passing?.problem !== undefined && (
        <p class="banner" role="status">
          {passing.problem.kind === 'offline' ? 'The server does not answer' : passing.problem.message}. This is what it
          said at {formatMoment(passing.answeredAtMs, props.nowMs)}; asking again.
        </p>
      )}
      {showsNothing ? (
        <Idle state={state} change={change} />
      ) : (
        <Explorer
          file={after}
          base={before}
          state={state}
          change={change}
          theme={props.theme}
          nowMs={props.nowMs}
          stale={busy}
          keys={explorerKeys}
          onCommand={props.onCommand}
        />
      )}
    </>
  );
}

const UNFILTERED: Partial<UrlState> = Object.fromEntries(FILTERS.map((filter) => [filter, '']));

/** What can be done when a selection has nothing. */
function WaysOut(props: { readonly state: UrlState; readonly change: ChangeState }): JSX.Element {
  const { state, change } = props;
  const filtered = FILTERS.some((filter) => state[filter] !== '');
  return (
    <>
      {filtered && (
        <button type="button" onClick={() => change(UNFILTERED)}>
          Without the filter
        </button>
      )}
      {state.service !== '' && (
        <button type="button" onClick={() => change({ service: '' })}>
          Whole host
        </button>
      )}
      {(state.brush !== '' || state.baseBrush !== '') && (
        <button type="button" onClick={() => change({ brush: '', baseBrush: '' })}>
          The whole time line
        </button>
      )}
      {state.from !== '-24h' && (
        <button type="button" onClick={() => change({ from: '-24h', to: '', brush: '', baseBrush: '' })}>
          The last 24 hours
        </button>
      )}
    </>
  );
}

function Idle(props: { readonly state: UrlState; readonly change: ChangeState }): JSX.Element {
  const who = props.state.service === '' ? 'Nothing' : `${props.state.service} was idle: nothing of it`;
  return (
    <Message
      title="No samples"
      text={`${who} ran on a CPU in this range. A sample is taken of what runs, so what sleeps or waits has none.`}
    >
      <WaysOut {...props} />
    </Message>
  );
}

function Failure(props: {
  readonly problem: Problem;
  readonly side: Side | undefined;
  readonly state: UrlState;
  readonly change: ChangeState;
}): JSX.Element {
  const { problem, side, change } = props;
  const of = side === undefined ? '' : side === 'before' ? ' for A, the baseline' : ' for B';
  switch (problem.kind) {
    case 'offline':
      return <Message tone="alert" title="The server does not answer" text="It may be stopped or restarting, or the way to it is broken. The page asks again by itself." />;
    case 'busy':
      return <Message tone="alert" title="The server cannot answer now" text={`${problem.message}. The page asks again by itself.`} />;
    case 'unauthorized':
      return (
        <Message tone="alert" title="This server wants a token" text="Load the page again and give the token as the password; any user name will do.">
          <button type="button" class="primary" onClick={() => window.location.reload()}>
            Load again
          </button>
        </Message>
      );
    case 'missing':
      return (
        <Message tone="alert" title={`Nothing there${of}`} text={withLocalTimes(problem.message, serverNowMs())}>
          <WaysOut state={props.state} change={change} />
        </Message>
      );
    default:
      return (
        <Message tone="alert" title={`There is no flame graph to show${of}`} text={problem.message}>
          <button type="button" onClick={() => change(DEFAULT_STATE)}>
            Start afresh
          </button>
        </Message>
      );
  }
}

/** Keys work wherever the focus is, except where text is typed or the part that has the focus takes them. */
function useGlobalKeys(obey: (command: Command) => void, direction: Direction): void {
  const latest = useRef({ obey, direction });
  latest.current = { obey, direction };
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target instanceof HTMLElement ? event.target : document.body;
      if (target.closest('input, textarea, select, dialog') !== null) return;
      const command = commandOf(event, latest.current.direction);
      if (command === undefined) return;
      // Enter and the arrows belong to what has the focus, if something has.
      const takesIt = target.closest('button, a, table, [role=tree], [tabindex]') !== null;
      if (takesIt && (command.do === 'move' || command.do === 'zoom' || command.do === 'first')) return;
      event.preventDefault();
      latest.current.obey(command);
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
}
